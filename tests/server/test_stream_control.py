"""Control messages of one connection, over real sockets: words, reset, ping, close."""

from ovoad_client import protocol

from .harness import ColourEncoder, Serve, occurs, picture

GREEN_THEN_RED = {"labels": ["green", "red"]}


async def test_control_messages_do_not_wait_behind_frames(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve() as server, server.session() as client:
        encoder.entered.clear()
        encoder.hold.clear()
        for seq in range(4):
            await client.frame(seq)
        await occurs(encoder.entered)
        await client.send(protocol.Ping(nonce="n"))
        assert await client.receive() == protocol.Pong(nonce="n")
        await client.send(protocol.SessionReset())
        assert await client.receive() == protocol.SessionWasReset()
        await client.send(protocol.Ping())
        assert await client.receive() == protocol.Pong()
        encoder.hold.set()
        assert [(await client.expect(protocol.Prediction)).seq for _ in range(4)] == [*range(4)]


async def test_new_words_hold_for_frames_after_them(serve: Serve, encoder: ColourEncoder) -> None:
    async with serve() as server, server.session(["red"]) as client:
        encoder.entered.clear()
        encoder.hold.clear()
        await client.frame(0)
        await occurs(encoder.entered)
        await client.frame(1)
        await client.send({"type": "vocabulary.update", "vocabulary": GREEN_THEN_RED})
        await client.frame(2)
        updated = await client.expect(protocol.VocabularyUpdated)
        assert updated == protocol.VocabularyUpdated(
            vocabulary_version=2, labels=["green", "red"], from_seq=2
        )
        encoder.hold.set()
        predictions = [await client.expect(protocol.Prediction) for _ in range(3)]
        assert [p.vocabulary_version for p in predictions] == [1, 1, 2]
        assert [p.similarities for p in predictions] == [[1.0], [1.0], [0.0, 1.0]]
        assert predictions[2].window.frames == 3, "image features stay"


async def test_frames_after_new_words_wait_for_their_embedding(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve() as server, server.session(["red"]) as client:
        encoder.entered_text.clear()
        encoder.hold_text.clear()
        await client.send({"type": "vocabulary.update", "vocabulary": GREEN_THEN_RED})
        await occurs(encoder.entered_text)
        await client.frame(0)
        await client.send(protocol.Ping())
        await client.expect(protocol.Pong)
        encoder.hold_text.set()
        await client.expect(protocol.VocabularyUpdated)
        assert (await client.expect(protocol.Prediction)).vocabulary_version == 2


async def test_updates_in_a_row_are_all_answered_in_order(serve: Serve) -> None:
    async with serve() as server, server.session() as client:
        for number in range(2, 7):
            words = protocol.Vocabulary(labels=[f"label {number}"])
            await client.send(protocol.VocabularyUpdate(vocabulary=words))
            await client.frame(number)
        answers = [await client.receive() for _ in range(10)]
        updated = [a for a in answers if isinstance(a, protocol.VocabularyUpdated)]
        predicted = [a for a in answers if isinstance(a, protocol.Prediction)]
        assert [u.labels for u in updated] == [[f"label {number}"] for number in range(2, 7)]
        assert [(u.vocabulary_version, u.from_seq) for u in updated] == [
            (2, 0),
            (3, 3),
            (4, 4),
            (5, 5),
            (6, 6),
        ]
        assert [(p.vocabulary_version, p.seq) for p in predicted] == [
            (number, number) for number in range(2, 7)
        ]


async def test_update_right_before_close_is_still_answered(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve() as server, server.session() as client:
        encoder.entered_text.clear()
        encoder.hold_text.clear()
        await client.send({"type": "vocabulary.update", "vocabulary": GREEN_THEN_RED})
        await client.send(protocol.SessionClose())
        await occurs(encoder.entered_text)
        encoder.hold_text.set()
        await client.expect(protocol.VocabularyUpdated)
        await client.expect(protocol.SessionClosed)
        assert (await client.ended())[0] == protocol.CLOSE_NORMAL


async def test_reset_empties_the_window(serve: Serve) -> None:
    async with serve() as server, server.session() as client:
        await client.frame(0, picture("red"))
        await client.expect(protocol.Prediction)
        await client.send(protocol.SessionReset())
        await client.expect(protocol.SessionWasReset)
        await client.frame(1, picture("blue"))
        prediction = await client.expect(protocol.Prediction)
        assert (prediction.window.frames, prediction.similarities) == (1, [0.0, 1.0])


async def test_close_answers_all_frames_first_and_counts(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve() as server, server.session(["green"]) as client:
        encoder.hold.clear()
        for seq in range(3):
            await client.frame(seq)
        await client.frame(3, b"no image")
        await client.send(protocol.SessionClose())
        encoder.hold.set()
        answers = [await client.receive() for _ in range(4)]
        assert [a.type for a in answers] == ["prediction"] * 3 + ["error"]
        assert await client.receive() == protocol.SessionClosed(
            reason="closed by client",
            received=4,
            predicted=3,
            dropped=protocol.DroppedCounts(),
            errors=1,
        )
        assert await client.ended() == (protocol.CLOSE_NORMAL, "closed by client")
