"""Another model or adapter while people type: nobody notices but by the answers."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import psutil
import pytest

from core.errors import InputError
from phase4_serve.model_file import check
from phase4_serve.swap import pin, stamp
from tests.phase4_serve.conftest import HIDDEN, HTTP, Running, start, wait_until, write_gguf

PLACE: dict[str, Any] = {"prompt": "def area(r):\n    return ", "suffix": "\n\nprint(area(2))\n", "path": "a.py", "manual": True}


def write_lora(path: Path, arch: str = "qwen2", kind: str = "lora", seed: int = 3) -> Path:
    """A strong random adapter of the tiny model's query matrices."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", kind)
    writer.add_float32("adapter.lora.alpha", 64.0)
    rng = np.random.default_rng(seed)
    for layer in range(2):
        writer.add_tensor(f"blk.{layer}.attn_q.weight.lora_a", rng.normal(0, 1, (4, HIDDEN)).astype(np.float32))
        writer.add_tensor(f"blk.{layer}.attn_q.weight.lora_b", rng.normal(0, 1, (HIDDEN, 4)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def swapping(tiny: Path, tmp_path: Path) -> Iterator[tuple[Running, Path]]:
    model = Path(shutil.copy(tiny, tmp_path / "served.gguf"))
    running = start(model, tmp_path / "s")
    yield running, model
    running.stop(signal.SIGKILL)


def log(running: Running) -> str:
    return (running.folder / "log").read_text()


def fingerprint(running: Running) -> str:
    return str(HTTP.post(f"{running.url}/v1/completions", json={**PLACE, "max_tokens": 1}).json()["system_fingerprint"])


def test_a_model_renamed_into_its_place_is_served_without_a_request_that_fails(swapping: tuple[Running, Path], tmp_path: Path) -> None:
    running, model = swapping
    old, new = check(model).fingerprint, check(write_gguf(tmp_path / "new.gguf", seed=8)).fingerprint
    answers: list[tuple[int, str, bool]] = []
    over = threading.Event()

    def type_on(who: int) -> None:
        with httpx.Client(verify=False, timeout=30) as client:
            for number in range(10_000):
                announced = "now serving" in log(running)
                body = {**PLACE, "prompt": f"{PLACE['prompt']}{number % 7}", "user": str(who), "stream": number % 2 == 1, "max_tokens": 4}
                answer = client.post(f"{running.url}/v1/completions", json=body)
                answers.append(
                    (answer.status_code, old if f'"{old}"' in answer.text else new if f'"{new}"' in answer.text else "?", announced)
                )
                if over.is_set():
                    return

    threads = [threading.Thread(target=type_on, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answers) > 20)
    old_llama = running.llama()
    (tmp_path / "new.gguf").replace(model)
    wait_until(lambda: "now serving" in log(running), 30)
    seen = len(answers)
    wait_until(lambda: len(answers) > seen + 20)
    over.set()
    for thread in threads:
        thread.join(10)
    assert {status for status, _, _ in answers} == {200}
    assert {mark for _, mark, _ in answers} == {old, new} and {mark for _, mark, announced in answers if announced} == {new}
    assert not old_llama.is_running() or old_llama.status() == psutil.STATUS_ZOMBIE
    assert HTTP.get(f"{running.url}/v1/models").json()["data"][0]["fingerprint"] == new
    assert running.metric('tabsmith_model_swaps_total{outcome="done"}') == 1 and running.metric("tabsmith_llama_server_deaths") == 0


def test_a_broken_file_changes_nothing_even_if_llama_server_dies(swapping: tuple[Running, Path], tmp_path: Path) -> None:
    running, model = swapping
    old = fingerprint(running)
    whole = model.read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "half").replace(model)
    wait_until(lambda: "still serving" in log(running), 10)
    (line,) = [line for line in log(running).splitlines() if "still serving" in line]
    assert "served.gguf is cut short" in line and fingerprint(running) == old
    running.llama().kill()
    wait_until(lambda: "starting it again" in log(running), 10)
    wait_until(lambda: HTTP.get(f"{running.url}/ready").status_code == 200, 10)
    assert fingerprint(running) == old
    running.process.send_signal(signal.SIGHUP)  # says so again, and goes on
    wait_until(lambda: log(running).count("still serving") == 2, 10)
    (tmp_path / "again.gguf").write_bytes(whole)
    (tmp_path / "again.gguf").replace(model)
    wait_until(lambda: "the same model" in log(running), 10)
    assert running.stop() == 0


def test_an_adapter_is_laid_over_the_model_and_exchanged(tiny: Path, tmp_path: Path) -> None:
    adapter = write_lora(tmp_path / "mine.gguf")
    running = start(tiny, tmp_path / "s", None, "--adapter", str(adapter))
    try:

        def ask() -> dict[str, Any]:
            return HTTP.post(f"{running.url}/v1/completions", json={**PLACE, "max_tokens": 8}).json()  # type: ignore[no-any-return]

        before = ask()
        assert before["model"] == "tiny:mine"
        write_lora(tmp_path / "next.gguf", seed=4).replace(adapter)
        wait_until(lambda: "now serving tiny:mine" in log(running), 20)
        after = ask()
        assert after["system_fingerprint"] != before["system_fingerprint"] and after["choices"][0]["text"] != before["choices"][0]["text"]
    finally:
        running.stop(signal.SIGKILL)


@pytest.mark.parametrize("wrong", ["a model", "another architecture", "no lora", "cut"])
def test_what_is_no_adapter_of_the_model_is_refused(tiny: Path, tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "adapter.gguf"
    if wrong == "a model":
        shutil.copy(tiny, path)
    elif wrong == "cut":
        path.write_bytes(write_lora(tmp_path / "whole.gguf").read_bytes()[:-100])
    else:
        write_lora(path, "llama" if wrong == "another architecture" else "qwen2", "lora" if wrong == "another architecture" else "other")
    with pytest.raises(InputError, match="adapter"):
        check(tiny, path)


def test_a_pinned_file_stays_what_it_was(tiny: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny, tmp_path / "m.gguf"))
    before = stamp(check(path))
    name, *opened = pin(path)
    write_gguf(tmp_path / "other.gguf", seed=9).replace(path)
    assert Path(name).read_bytes() == tiny.read_bytes() != path.read_bytes()
    assert stamp(check(path)) != before and check(path).fingerprint != check(tiny).fingerprint
    for handle in opened:
        os.close(handle)
    assert pin(tmp_path / "m-00001-of-00002.gguf") == (tmp_path / "m-00001-of-00002.gguf",)  # its parts are found by name
