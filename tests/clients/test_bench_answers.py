"""The check that every frame is answered exactly once."""

from ovoad_client.bench.answers import AnswerBook, Tally


def tally_of(book: AnswerBook) -> Tally:
    """Return the tally of one session."""
    tally = Tally()
    tally.add(book)
    return tally


def test_each_answered_once_is_no_complaint() -> None:
    book = AnswerBook()
    for due_s in (1.0, 2.0, 3.0):
        book.send(due_s)
    assert [book.answer(seq) for seq in (1, 0, 2)] == [2.0, 1.0, 3.0]
    tally = tally_of(book)
    assert tally.complaints == []
    assert tally.sentence() == "3 frames sent, each answered exactly once"


def test_a_doubled_answer_is_caught() -> None:
    book = AnswerBook()
    book.send(1.0)
    book.answer(0)
    assert book.answer(0) is None
    assert tally_of(book).sentence() == "1 frames sent, but 1 answers came a second time"


def test_a_missing_answer_is_caught() -> None:
    book = AnswerBook()
    book.send(1.0)
    book.send(2.0)
    book.answer(1)
    assert book.unanswered == 1
    assert tally_of(book).complaints == ["1 frames were not answered"]


def test_an_answer_to_no_frame_is_caught() -> None:
    book = AnswerBook()
    assert book.answer(0) is None
    assert tally_of(book).complaints == ["1 answers belong to no frame"]


def test_tallies_add_up_and_name_what_broke() -> None:
    first, second = Tally(sessions=1, sent=3, answered=3), Tally(sessions=2, sent=4, answered=4)
    second.lost, second.miscounted = 1, 1
    second.broken["connection broken"] = 2
    first.merge(second)
    assert (first.sessions, first.sent, first.answered) == (3, 7, 7)
    assert first.sentence() == (
        "7 frames sent, but 1 frames of lossless sessions got no prediction, "
        "1 sessions were counted otherwise by the server, 2 sessions broke: connection broken"
    )
