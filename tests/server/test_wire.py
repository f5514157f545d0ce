"""From scores to the text of a prediction: all labels or the best ones, rounded."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovoad_client.protocol import parse_server_message
from ovoad_server import wire
from ovoad_server.engine.events import ActionEvent
from ovoad_server.engine.interface import Float32Array
from ovoad_server.engine.replies import Dropped, Failed, Reply, Scored, Timing

numbers = arrays(np.float32, st.integers(1, 40), elements=st.floats(-2, 2, width=32))


def scored(probabilities: Float32Array, similarities: Float32Array, **more: Any) -> Scored:
    """Return an answer with these numbers."""
    labels = tuple(f"action {row}" for row in range(len(probabilities)))
    scores: Any = SimpleNamespace(
        probabilities=probabilities,
        background=0.25,
        similarities=similarities,
        assignment=more.get("assignment"),
        foreground=more.get("foreground"),
    )
    words: Any = SimpleNamespace(labels=labels, warnings=())
    window: Any = SimpleNamespace(frames=3, span_ms=500, gaps=0, warming_up=True)
    timing = Timing(queue=0.1234567, decode=1, encode=2, score=3, total=6.1234567)
    return Scored(7, 1000, 2, words, scores, window, timing, backlog=1)


def text(reply: Reply, *, top_k: int | None = None) -> dict[str, Any]:
    """Return the fields of a message, which must be one of the contract."""
    message = wire.to_json(reply, top_k=top_k)
    parse_server_message(message)
    fields: dict[str, Any] = json.loads(message)
    return fields


def test_prediction_has_every_field_of_the_contract() -> None:
    values = np.array([0.5, 0.25], np.float32)
    assert text(scored(values, -values)) == {
        "type": "prediction",
        "seq": 7,
        "timestamp_ms": 1000,
        "vocabulary_version": 2,
        "probabilities": [0.5, 0.25],
        "background": 0.25,
        "similarities": [-0.5, -0.25],
        "window": {"frames": 3, "span_ms": 500, "gaps": 0, "warming_up": True},
        "timing_ms": {"queue": 0.123, "decode": 1, "encode": 2, "score": 3, "total": 6.123},
        "backlog": 1,
    }


@given(numbers)
def test_numbers_are_rounded_as_python_rounds(values: Float32Array) -> None:
    fields = text(scored(values, values[::-1]))
    wanted = [round(value, 6) for value in values.astype(np.float64).tolist()]
    assert fields["probabilities"] == wanted
    assert fields["similarities"] == wanted[::-1]


@pytest.mark.parametrize("top_k", [None, 3])
def test_text_says_what_the_message_says(top_k: int | None) -> None:
    values = np.random.default_rng(0).normal(size=50).astype(np.float32)
    grouping = {
        "assignment": np.random.default_rng(1).random((8, 4), np.float32),
        "foreground": np.random.default_rng(2).random(8, np.float32),
    }
    reply = scored(values, values[::-1].copy(), **grouping)
    message = wire.to_message(reply, top_k=top_k)
    assert parse_server_message(wire.to_json(reply, top_k=top_k)) == message


@pytest.mark.parametrize(
    "reply",
    [
        Dropped(3, 10, "busy"),
        Failed(3, "bad_image", "found 3 bytes"),
        ActionEvent("start", "waving", 1000, 0.75, 500),
    ],
)
def test_other_answers_are_their_messages(reply: Reply) -> None:
    message = wire.to_message(reply, top_k=None)
    assert wire.to_json(reply, top_k=None) == message.to_json()


@given(
    arrays(
        np.float32,
        st.integers(1, 60),
        elements=st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.9]).map(lambda x: float(np.float32(x))),
    ),
    st.integers(1, 70),
)
def test_top_labels_are_those_of_a_stable_sort(values: Float32Array, top_k: int) -> None:
    top = text(scored(values, -values), top_k=top_k)["top"]
    order = np.argsort(-values, kind="stable")[:top_k]
    assert [entry["label"] for entry in top] == [f"action {row}" for row in order]
    assert [entry["probability"] for entry in top] == [round(float(values[r]), 6) for r in order]
    assert [entry["similarity"] for entry in top] == [round(-float(values[r]), 6) for r in order]


def test_top_labels_come_without_the_lists() -> None:
    fields = text(scored(np.ones(4, np.float32), np.ones(4, np.float32)), top_k=2)
    assert "probabilities" not in fields
    assert "similarities" not in fields
