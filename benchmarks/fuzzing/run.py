"""One run of the fuzzer: plays side by side, what is left after them, and what is told."""

import argparse
import asyncio
import collections
import random
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fuzzing.breaches import Breaches, run_play
from fuzzing.ledger import Ledger
from fuzzing.pictures import Pictures, make_pictures
from fuzzing.sessions import SessionPlay
from fuzzing.target import Target, Vitals, running_target

PLAYS = {"session": 22, "first": 30, "breach": 18, "garbage": 12, "http": 60}
WARM_UP = 200  # messages before the vital signs that are compared
SETTLE_S = 40.0
MORE_DESCRIPTORS = 3
MORE_THREADS = 8  # pools grow to their bounds as they are used
TELL_EVERY_S = 10.0
KNOWN_IN_LOG = (  # uvicorn's own way to log a client's mistake; it closes with 1007 all the same
    "Invalid UTF-8 sequence received from client",
    "UnicodeDecodeError: 'utf-8' codec can't decode",
    "InvalidState: connection is clos",
    "Fatal error: protocol.data_received() call failed",
)


def main(arguments: Sequence[str]) -> int:
    """Fuzz and tell; returns 1 where something was found."""
    parser = argparse.ArgumentParser(description="Pound a real server over real sockets.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--play", type=int, help="repeat this play alone")
    parser.add_argument("--log", type=Path, help="keep the server's log here")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        ledger = asyncio.run(_fuzz(options, Path(folder)))
        if options.log is not None:
            options.log.write_bytes((Path(folder) / "server.log").read_bytes())
    return 1 if ledger.findings else 0


async def _fuzz(options: argparse.Namespace, folder: Path) -> Ledger:
    pictures = make_pictures()
    async with running_target(folder, {}) as target:
        ledger = Ledger(WARM_UP, time.monotonic() + 60.0)
        await _play_all(target, ledger, pictures, options, first=-(10**6))
        await _settled(target)
        before = await asyncio.to_thread(target.vitals)
        started_s = time.monotonic()
        ledger.most, ledger.until_s = options.messages, started_s + options.minutes * 60
        await _play_all(target, ledger, pictures, options, first=0)
        seconds = time.monotonic() - started_s
        await _look_after(target, ledger, before)
        _look_into_log(target.log_text(), ledger)
    _look_at_end(target, ledger)
    _tell(ledger, seconds, options)
    return ledger


async def _play_all(
    target: Target, ledger: Ledger, pictures: Pictures, options: argparse.Namespace, *, first: int
) -> None:
    """Let some connections play at a time until the ledger is done."""
    numbers = iter([options.play]) if options.play is not None else iter(range(first, 10**9))
    breaches = Breaches(target, ledger, seed=options.seed)
    telling = asyncio.create_task(_tell_now_and_then(ledger))

    async def player() -> None:
        for number in numbers:
            if ledger.done or not target.alive:
                return
            ledger.plays += 1
            name = random.Random(f"{options.seed} {number} play").choices(
                list(PLAYS), list(PLAYS.values())
            )[0]
            try:
                if name == "session":
                    play = SessionPlay(target, ledger, pictures, number=number, seed=options.seed)
                    await play.run()
                else:
                    await run_play(name, number, breaches)
            except ConnectionRefusedError:
                ledger.find(number, "the server takes no connections")
                return
            except TimeoutError:
                ledger.find(number, f"play {name!r} did not come to its end")

    async with asyncio.TaskGroup() as players:
        for _ in range(options.connections):
            players.create_task(player())
    telling.cancel()


async def _tell_now_and_then(ledger: Ledger) -> None:
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        found = len(ledger.findings)
        print(f"  … {ledger.total} messages, {ledger.plays} plays, {found} findings", flush=True)


async def _settled(target: Target) -> dict[str, float]:
    """Wait until the server says that nobody is left; returns its metrics."""
    until_s = time.monotonic() + SETTLE_S
    while True:
        metrics = await asyncio.to_thread(target.metrics)
        left = metrics["ovoad_sessions_active"] + metrics["ovoad_frames_waiting"]
        if left == 0 or time.monotonic() > until_s:
            return metrics
        await asyncio.sleep(0.2)


async def _look_after(target: Target, ledger: Ledger, before: Vitals) -> None:
    """Look for what is left once all clients are gone."""
    if not target.alive:
        return
    metrics = await _settled(target)
    for name in ("ovoad_sessions_active", "ovoad_frames_waiting"):
        if metrics[name] != 0:
            ledger.find(-1, f"{name} is {metrics[name]:g} after all clients left")
    await asyncio.sleep(6.0)  # readiness is answered from memory for 5 s
    if (reason := await asyncio.to_thread(target.readiness)) is not None:
        ledger.find(-1, f"not ready at the end: {reason}")
    after = await asyncio.to_thread(target.vitals)
    print(f"before: {before}\nafter:  {after}")
    if after.descriptors > before.descriptors + MORE_DESCRIPTORS:
        ledger.find(-1, f"open files grew from {before.descriptors} to {after.descriptors}")
    if after.threads > before.threads + MORE_THREADS:
        ledger.find(-1, f"threads grew from {before.threads} to {after.threads}")


def _look_into_log(text: str, ledger: Ledger) -> None:
    """Count the tracebacks in the server's log by their last line, and its errors."""
    traces = re.findall(r"Traceback \(most recent call last\):\n(?:[ +|].*\n|\n)*(.+)", text)
    errors = re.findall(r"^\S+ \S+ (?:ERROR|CRITICAL) (.*)", text, re.MULTILINE)
    for what, count in collections.Counter(traces + errors).items():
        if any(known in what for known in KNOWN_IN_LOG):
            ledger.came["log: known noise of uvicorn"] += count
        else:
            ledger.find(-1, f"the log has {count} times: {what}")


def _look_at_end(target: Target, ledger: Ledger) -> None:
    code = target.process.returncode
    if code not in (0, -15):
        ledger.find(-1, f"the server ended with {code}")


def _tell(ledger: Ledger, seconds: float, options: argparse.Namespace) -> None:
    """Print what was sent, what came and what was found."""
    rate = ledger.total / max(seconds, 1e-9)
    print(f"seed {options.seed}: {ledger.total} messages in {ledger.plays} plays over")
    print(f"{options.connections} connections at a time, {seconds:.0f} s, {rate:.0f} messages/s")
    for title, counts in (("sent", ledger.sent), ("came", ledger.came), ("ends", ledger.ends)):
        print(f"{title}:")
        for what, count in sorted(counts.items(), key=lambda pair: -pair[1]):
            print(f"  {count:8d}  {what}")
    print(f"findings: {len(ledger.findings)}")
    for what, plays in ledger.findings.items():
        print(f"  {len(plays):6d}  {what}  (plays {', '.join(map(str, plays[:5]))})")
