"""One example of every wire message and answer, for the descriptions. Knows no route."""

from typing import Final

from ovoad_client import protocol

FRAME: Final = protocol.BinaryFrame(seq=7, timestamp_ms=280, image=bytes.fromhex("ffd8ffd9"))
VOCABULARY: Final = protocol.Vocabulary(
    labels=["riding a bicycle", "crossing the street"],
    templates=["a person {}"],
    background=["an empty street"],
)
MODEL: Final = protocol.ModelInfo(encoder="embedded", scorer="average", fingerprint="9e107d9d372b")
LIMITS: Final = protocol.Limits(
    max_frame_bytes=4_194_304,
    max_pixels=16_777_216,
    max_labels=1000,
    max_inflight=16,
    max_fps=60.0,
    idle_timeout_ms=60_000,
    max_session_ms=86_400_000,
)
WINDOW: Final = protocol.WindowShape(fps=4.0, past=24, neighbours=8)
CONFIG: Final = protocol.ServerConfig(
    model=MODEL,
    scorers=["average", "frame", "cluster"],
    languages=["en"],
    templates=["a person {}"],
    background=["an empty street", "a person standing still"],
    limits=LIMITS,
    window=WINDOW,
    events=protocol.EventSettings(),
)
_STATE: Final = protocol.WindowState(frames=2, span_ms=250, gaps=0, warming_up=True)
_TIMING: Final = protocol.Timing(queue=0.25, decode=1.5, encode=9.75, score=0.125, total=11.625)
PREDICTION: Final = protocol.Prediction(
    seq=7,
    timestamp_ms=280,
    vocabulary_version=1,
    probabilities=[0.625, 0.125],
    background=0.25,
    similarities=[0.3125, -0.0625],
    window=_STATE,
    timing_ms=_TIMING,
    backlog=0,
)
BEST: Final = PREDICTION.model_copy(
    update={
        "probabilities": None,
        "similarities": None,
        "top": [
            protocol.RankedLabel(label="riding a bicycle", probability=0.625, similarity=0.3125)
        ],
    }
)
GROUPED: Final = PREDICTION.model_copy(
    update={"grouping": protocol.Grouping(assignment=[[0.75, 0.25]], foreground=[0.5])}
)
EVENT: Final = protocol.Event(
    kind="end", label="riding a bicycle", timestamp_ms=2400, probability=0.28125, start_ms=900
)

MESSAGES: Final[tuple[protocol.Message, ...]] = (
    protocol.SessionCreate(vocabulary=protocol.Vocabulary(labels=VOCABULARY.labels)),
    protocol.SessionCreate(
        vocabulary=VOCABULARY,
        policy="lossless",
        scorer="average",
        top_k=2,
        events=protocol.EventSettings(),
        resume=protocol.Resume(token="v7b1fXq2Lk0pR9aZ", last_seq=41),
    ),
    protocol.FrameMessage(seq=7, timestamp_ms=280, image_base64="/9j/2Q=="),
    protocol.VocabularyUpdate(vocabulary=protocol.Vocabulary(labels=["juggling a ball"])),
    protocol.SessionReset(),
    protocol.SessionClose(),
    protocol.Ping(nonce="n1"),
    protocol.SessionCreated(
        session_id="b0c9Jx4yQm1tUe7s",
        model=MODEL,
        labels=VOCABULARY.labels,
        vocabulary_version=1,
        policy="lossless",
        limits=LIMITS,
        window=WINDOW,
        resume_token="v7b1fXq2Lk0pR9aZ",
        resumed=True,
        next_seq=42,
        warnings=["label '骑自行车' is not English"],
    ),
    PREDICTION,
    BEST,
    GROUPED,
    protocol.FrameDropped(seq=9, timestamp_ms=360, reason="busy"),
    EVENT,
    protocol.VocabularyUpdated(vocabulary_version=2, labels=["juggling a ball"], from_seq=10),
    protocol.SessionWasReset(),
    protocol.Pong(nonce="n1"),
    protocol.Error(
        code="bad_image",
        message="found 4 bytes that are no image, expected JPEG, PNG or WebP",
        fatal=False,
        transient=False,
        seq=11,
    ),
    protocol.Error(
        code="capacity",
        message="found 64 sessions open, expected fewer than 64; try again later",
        fatal=True,
        transient=True,
        retry_after_ms=5000,
    ),
    protocol.GoAway(reason="restart", time_left_ms=4000),
    protocol.SessionClosed(
        reason="closed by client",
        received=12,
        predicted=9,
        dropped=protocol.DroppedCounts(busy=1, rate=1),
        errors=1,
    ),
)
