"""Checks of `session.create`: what it grants, what it refuses, and that it comes first."""

import functools
from collections.abc import Mapping
from typing import Any, Final, get_args

from ovoad_client import protocol
from ovoad_client.conformance.check import Check
from ovoad_client.conformance.findings import NotCheckedError, equal, expect
from ovoad_client.conformance.target import LABELS, Target, creation
from ovoad_client.protocol import CLOSE_PROTOCOL

LONG: Final = "x" * (protocol.MAX_LABEL_CHARACTERS + 1)
MOST_LABELS: Final = 20_000  # more would be an attack, not a check
# Each refusal: its name, what is sent first, and the error's code.
MESSAGES: Final[Mapping[str, tuple[Any, str]]] = {
    "not_json": ("this is no JSON", "bad_message"),
    "no_object": ("[]", "bad_message"),
    "no_type": ({"vocabulary": {"labels": ["a"]}}, "bad_message"),
    "unknown_type": ({"type": "session.begin"}, "bad_message"),
    "unknown_field": (creation(surprise=1), "bad_message"),
    "policy": (creation(policy="best"), "bad_message"),
    "type": (creation(top_k="3"), "bad_message"),
    "top_k": (creation(top_k=0), "bad_message"),
    "events": (creation(events={"enter": 0.2, "exit": 0.5}), "bad_message"),
    "token": (creation(resume={"token": ""}), "bad_message"),
    "binary": (protocol.pack_frame(0, 0, b"image"), "out_of_turn"),
    "ping": ({"type": "ping"}, "out_of_turn"),
    "frame": (
        {"type": "frame", "seq": 0, "timestamp_ms": 0, "image_base64": "AAAA"},
        "out_of_turn",
    ),
}
VOCABULARIES: Final[Mapping[str, dict[str, object]]] = {
    "no_labels": {"labels": []},
    "empty_label": {"labels": ["a", " "]},
    "same_label": {"labels": ["a", "a"]},
    "long_label": {"labels": [LONG]},
    "number": {"labels": [1]},
    "unknown_field": {"labels": ["a"], "words": []},
    "template_without_place": {"labels": ["a"], "templates": ["a person"]},
    "template_with_two": {"labels": ["a"], "templates": ["{} or {}"]},
    "no_templates": {"labels": ["a"], "templates": []},
    "no_background": {"labels": ["a"], "background": []},
    "empty_background": {"labels": ["a"], "background": [""]},
}


async def _grants_what_was_asked(target: Target) -> None:
    async with target.session(top_k=None) as wire:
        created = wire.created
        equal(created.labels, list(LABELS), "labels")
        equal((created.protocol, created.vocabulary_version), (1, 1), "protocol and version")
        equal((created.policy, created.resumed), ("lossless", False), "policy and resumed")
        equal(created.next_seq, None, "next_seq")
        expect(bool(created.resume_token), "an empty resume_token", "one to come back with")
        for name, limit in created.limits.model_dump().items():
            expect(limit > 0, f"limit {name} of {limit}", "more than 0")
        expect(created.window.fps > 0, f"a window of {created.window}", "more than 0 fps")


async def _takes_realtime_for_granted(target: Target) -> None:
    async with target.connect() as wire:
        created = await wire.create(policy="realtime")
        equal(created.policy, "realtime", "policy")
    async with target.connect() as wire:
        await wire.say({"type": "session.create", "vocabulary": {"labels": ["waving"]}})
        default = await wire.hear_a(protocol.SessionCreated)
        equal(default.policy, "realtime", "default policy")


async def _refuses(target: Target, *, first: Any, code: str) -> None:
    async with target.connect() as wire:
        await wire.say(first)
        await wire.cut_off(code, CLOSE_PROTOCOL)


async def _refuses_an_unknown_scorer(target: Target) -> None:
    config = protocol.ServerConfig.model_validate_json((await target.fetch("/v1/config")).body)
    missing = [name for name in get_args(protocol.ScorerName) if name not in config.scorers]
    if not missing:
        raise NotCheckedError("the server has every scorer")
    await _refuses(target, first=creation(scorer=missing[0]), code="unknown_scorer")


async def _refuses_too_many_labels(target: Target) -> None:
    async with target.session() as wire:
        most = wire.created.limits.max_labels
    if most >= MOST_LABELS:
        raise NotCheckedError(f"the server takes {most} labels")
    vocabulary = {"labels": [f"action {number}" for number in range(most + 1)]}
    await _refuses(target, first=creation(vocabulary=vocabulary), code="bad_vocabulary")


async def _refuses_a_second_one(target: Target) -> None:
    async with target.session() as wire:
        await wire.say(creation())
        await wire.refused("out_of_turn")
        await wire.frame(0)
        await wire.predicted(0)


async def _waits_ten_seconds(target: Target) -> None:
    if not target.slow:
        raise NotCheckedError("takes 10 s: --slow")
    async with target.connect() as wire:
        await wire.cut_off("create_timeout", CLOSE_PROTOCOL)


CHECKS = (
    Check("create.grants", "session.created tells what was asked for", _grants_what_was_asked),
    Check("create.policy", "realtime is the default", _takes_realtime_for_granted),
    *(
        Check(
            f"create.refuses.{name}",
            f"{code} and 1008",
            functools.partial(_refuses, first=first, code=code),
        )
        for name, (first, code) in MESSAGES.items()
    ),
    *(
        Check(
            f"create.refuses.vocabulary.{name}",
            "bad_vocabulary and 1008",
            functools.partial(
                _refuses, first=creation(vocabulary=vocabulary), code="bad_vocabulary"
            ),
        )
        for name, vocabulary in VOCABULARIES.items()
    ),
    Check("create.refuses.max_labels", "bad_vocabulary and 1008", _refuses_too_many_labels),
    Check("create.refuses.scorer", "unknown_scorer and 1008", _refuses_an_unknown_scorer),
    Check("create.twice", "a second one is out_of_turn; the first goes on", _refuses_a_second_one),
    Check("create.timeout", "silence for 10 s is create_timeout and 1008", _waits_ten_seconds),
)
