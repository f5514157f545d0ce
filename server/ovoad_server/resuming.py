"""Find the session that a client comes back to. Knows no socket."""

from dataclasses import replace

from ovoad_client import protocol
from ovoad_server.hub import Hub
from ovoad_server.keys.checking import ANYONE, Caller
from ovoad_server.live_session import LiveSession


def resume_session(
    hub: Hub, asked: protocol.Resume | None, caller: Caller = ANYONE
) -> LiveSession | None:
    """Return the session that a client comes back to, None where it has none any more.

    A session belongs to the key that opened it: the token of another key's is as good as none.
    """
    if asked is None:
        return None
    live = hub.sessions.get(asked.token)
    if not isinstance(live, LiveSession) or live.caller.key_name != caller.key_name:
        return None
    if not live.resume(asked.last_seq):
        return None
    live.caller = replace(live.caller, address=caller.address)
    return live
