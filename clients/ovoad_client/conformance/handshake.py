"""Checks of the handshake: subprotocol, key, origin."""

import base64

from websockets.exceptions import InvalidStatus

from ovoad_client import protocol
from ovoad_client.conformance.check import Check
from ovoad_client.conformance.findings import MismatchError, NotCheckedError, equal
from ovoad_client.conformance.target import Target


async def _answers_the_subprotocol(target: Target) -> None:
    async with target.connect() as wire:
        equal(wire.socket.subprotocol, protocol.SUBPROTOCOL, "subprotocol")


async def _needs_no_subprotocol(target: Target) -> None:
    async with target.connect(subprotocols=()) as wire:
        equal(wire.socket.subprotocol, None, "subprotocol")
        await wire.create()


async def _ignores_other_subprotocols(target: Target) -> None:
    async with target.connect(subprotocols=("other.v9", protocol.SUBPROTOCOL)) as wire:
        equal(wire.socket.subprotocol, protocol.SUBPROTOCOL, "subprotocol")


async def _refuses_a_wrong_key(target: Target) -> None:
    _need_a_key(target)
    async with target.connect(api_key=f"{target.api_key}x") as wire:
        await wire.cut_off("unauthorised", protocol.CLOSE_UNAUTHORISED)


async def _refuses_no_key(target: Target) -> None:
    _need_a_key(target)
    async with target.connect(with_key=False) as wire:
        await wire.cut_off("unauthorised", protocol.CLOSE_UNAUTHORISED)


async def _takes_the_key_as_a_subprotocol(target: Target) -> None:
    _need_a_key(target)
    encoded = base64.urlsafe_b64encode((target.api_key or "").encode()).decode().rstrip("=")
    offered = (protocol.SUBPROTOCOL, f"ovoad.key.{encoded}")
    async with target.connect(subprotocols=offered, with_key=False) as wire:
        equal(wire.socket.subprotocol, protocol.SUBPROTOCOL, "subprotocol")
        await wire.create()


async def _refuses_a_foreign_page(target: Target) -> None:
    try:
        async with target.connect(origin="https://elsewhere.example"):
            pass
    except InvalidStatus as refusal:
        equal(refusal.response.status_code, 403, "HTTP status")
        return
    raise MismatchError("an open connection for a page of another origin", "HTTP status 403")


def _need_a_key(target: Target) -> None:
    if target.api_key is None:
        raise NotCheckedError("no --api-key was given")


CHECKS = (
    Check("handshake.subprotocol", "ovoad.v1 is answered", _answers_the_subprotocol),
    Check("handshake.no_subprotocol", "it may be left out", _needs_no_subprotocol),
    Check("handshake.several", "of several it is chosen", _ignores_other_subprotocols),
    Check("handshake.wrong_key", "is told and closed with 4401", _refuses_a_wrong_key),
    Check("handshake.no_key", "is told and closed with 4401", _refuses_no_key),
    Check(
        "handshake.key_subprotocol",
        "pages may show the key so; it is never echoed",
        _takes_the_key_as_a_subprotocol,
    ),
    Check("handshake.origin", "pages of other origins get 403", _refuses_a_foreign_page),
)
