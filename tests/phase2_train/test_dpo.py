"""Preference training: both answers in one row are the same sums, bad pairs are named, a collapse is seen and undone."""

import json
import math

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from trl.trainer.dpo_trainer import DataCollatorForPreference

from core.errors import InputError
from core.fim import CONTROL
from core.manifest import sha256_of
from core.records import read_parquet, write_jsonl
from phase2_train import dpo
from phase2_train.base import load
from phase2_train.collapse import Collapse, Holes, Look
from phase2_train.machine import machine
from phase2_train.model_folder import save_adapter
from phase2_train.params import DpoParams, MonitorParams
from phase2_train.rows import load_codec, load_tokenizer
from phase2_train.sft import lora_config
from phase2_train.shared_prompt import Collator, share_prompts

from .conftest import LORA, MONITOR
from .test_pairs import SFT

WATCHFUL = MonitorParams(every=5, holes=4, max_new_tokens=24, patience=2, max_chosen_fall=0.15, max_accuracy=0.98, length_ratio=(0.5, 2.0))
DPO = DpoParams(
    beta=0.2, loss=["sigmoid", "sft"], loss_weights=[1.0, 1.0], lr=1e-4, warmup_share=0.0, epochs=1, max_steps=-1, batch=2,
    accumulate=1, save_steps=100, monitor=WATCHFUL, seed=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, base):
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("adapter")
    model = get_peft_model(load(base, 16, machine()), lora_config(LORA))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    save_adapter(model, folder, sha256_of(base))
    return folder


def pair(n: int, **changes):
    text = f"x{n} = {n}\n" * (n % 3 + 1)
    return {"prefix": f"{text}y{n} = ", "suffix": "\n", "chosen": f"call({n})", "rejected": f"call({n})\nprint(x{n})", **changes}


def pairs_of(rows, tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    return tmp_path / "pairs.jsonl"


def logps(model, batch):
    mask = batch["completion_mask"][:, 1:]
    logits = model(**{name: value for name, value in batch.items() if name != "completion_mask"}).logits[:, :-1]
    return (torch.log_softmax(logits, -1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0] * mask).sum(1)


def test_a_shared_prompt_gives_the_same_sums_and_gradients(base, adapter, tmp_path):
    codec = load_codec(base)
    rows = dpo.read_pairs(pairs_of([pair(n, order="psm" if n % 2 else "spm") for n in range(5)], tmp_path), codec, 1)
    found = []
    for shared in (False, True):
        model = PeftModel.from_pretrained(load(base, 16, machine()), adapter, is_trainable=True)
        if shared:
            share_prompts(model)
        batch = (Collator(codec.tokens.pad) if shared else DataCollatorForPreference(codec.tokens.pad))(rows)
        sums = logps(model, batch)
        (sums * torch.arange(1.0, 11.0)).sum().backward()
        found.append((sums.detach(), [parameter.grad for parameter in model.parameters() if parameter.requires_grad]))
    (plain, plain_grads), (mine, my_grads) = found
    assert torch.allclose(plain, mine, atol=1e-4)
    assert all(torch.allclose(a, b, atol=1e-3, rtol=1e-3) for a, b in zip(plain_grads, my_grads, strict=True))


def test_it_starts_at_ln_2_without_a_difference_to_the_reference(base, adapter, samples, tmp_path):
    params = DPO.model_copy(update={"loss": ["sigmoid"], "loss_weights": [1.0], "lr": 1e-12, "monitor": MONITOR})
    file = pairs_of([pair(n) for n in range(10)], tmp_path)
    metrics = dpo.run(file, base, adapter, tmp_path / "out", params, SFT, samples=samples)
    assert metrics["first_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert metrics["logps_to_reference_chosen"] == pytest.approx(0.0, abs=1e-4)
    assert metrics["stopped_by"] is None and metrics["start_length_ratio"] > 0
    assert (tmp_path / "out" / "dvclive" / "plots" / "metrics" / "logps_to_reference" / "chosen.tsv").is_file()


def test_answers_differ_from_the_end_token_on(base):
    codec = load_codec(base)
    ids = dpo.preference_ids({"order": "spm", "path": "", "repo": "", "context": [], "evidence": {"ended": False},
                              "prefix": "a", "suffix": "b", "chosen": "retur", "rejected": "return x"}, codec)  # fmt: skip
    assert ids["chosen_ids"][-1] == codec.tokens.end
    assert ids["rejected_ids"][: len(ids["chosen_ids"]) - 1] == ids["chosen_ids"][:-1] and codec.tokens.end not in ids["rejected_ids"]


@pytest.mark.parametrize("text", CONTROL)
def test_control_tokens_in_a_text_stay_text(text, base):
    codec = load_codec(base)
    given = pair(1, prefix=f"a{text}", suffix=f"{text}b", chosen=f"x{text}", rejected=f"{text}{text}y")
    ids = dpo.preference_ids({"order": "spm", "path": "", "repo": "", "context": [], "evidence": {}, **given}, codec)
    assert [token for token in ids["prompt_ids"] if token in set(codec.tokens)] == [
        codec.tokens.prefix,
        codec.tokens.suffix,
        codec.tokens.middle,
    ]
    for side in ("chosen_ids", "rejected_ids"):
        assert [token for token in ids[side] if token in set(codec.tokens)] == [codec.tokens.end]


@pytest.mark.parametrize(
    ("rows", "batch", "words"),
    [
        ([pair(1)], 2, "holds 1 pairs, fewer than one batch of 2"),
        ([pair(n, chosen=" ") for n in range(4)], 2, "4 left out as empty_chosen"),
        ([pair(n, rejected=f"call({n})") for n in range(4)], 2, "4 left out as same_answers"),
        ([pair(n, prefix="word = 1\n" * 200) for n in range(4)], 2, "4 left out as too_long"),
        ([pair(n, chosen="" if n < 2 else "x") for n in range(6)], 2, "too few of its pairs can be used"),
        ([pair(1, order="ltr")], 1, "pair 1 is no pair"),
        ([pair(1), pair(1, rejected=None)], 1, "pair 2 is no pair"),
        ([pair(1, evidence=[])], 1, "pair 1 is no pair"),
    ],
)  # fmt: skip
def test_bad_pairs_are_named(rows, batch, words, base, tmp_path):
    with pytest.raises(InputError, match=words):
        dpo.read_pairs(pairs_of(rows, tmp_path), load_codec(base), batch, room=512)


def test_a_few_bad_pairs_are_left_out_and_counted(base, adapter, samples, tmp_path):
    rows = [pair(n) for n in range(9)] + [pair(9, chosen="")]
    params = DPO.model_copy(update={"monitor": MONITOR, "max_steps": 5})
    dpo.run(pairs_of(rows, tmp_path), base, adapter, tmp_path / "out", params, SFT, samples=samples)
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]
    assert counts["pairs"] == 9 and counts["dropped_empty_chosen"] == 1 and counts["stopped_by"] is None


def test_an_adapter_of_another_base_is_refused(base, adapter, tmp_path):
    other = tmp_path / "adapter"
    other.mkdir()
    for file in adapter.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "base.json").write_text(json.dumps({"base_sha256": "0" * 64}))
    with pytest.raises(InputError, match="was trained on a base of sha256 000000000000"):
        dpo.run(pairs_of([pair(1)], tmp_path), base, other, tmp_path / "out", DPO, SFT)


def test_a_planted_bad_recipe_is_stopped_and_undone(base, adapter, samples, tmp_path, capsys):
    """Plain DPO, a learning rate far too high, three epochs: the adapter that comes out is one from before."""
    bad = DPO.model_copy(update={"loss": ["sigmoid"], "loss_weights": [1.0], "lr": 0.05, "epochs": 3, "beta": 0.1})
    rows = [pair(n) for n in range(30)]
    metrics = dpo.run(pairs_of(rows, tmp_path), base, adapter, tmp_path / "out", bad, SFT, samples=samples)
    shown = [line for line in capsys.readouterr().out.splitlines() if "collapse" in line]
    assert metrics["stopped_by"] and len(shown) == 1 and metrics["stopped_by"] in shown[0]
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]
    assert counts["stopped_by"] == metrics["stopped_by"] and counts["steps"] < 45 and counts["kept_step"] < counts["steps"]
    kept, before = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "out" / "adapter", adapter))
    if counts["kept_step"] == 0:
        assert all(torch.equal(kept[name], before[name]) for name in before)
    assert all(torch.isfinite(value).all() for value in kept.values())


def monitor(params: MonitorParams = WATCHFUL) -> Collapse:
    return Collapse(params, 0.1, None)


def test_what_is_kept_is_from_before_the_events_that_told():
    class State:
        is_world_process_zero, global_step = True, 0

    class Arguments:
        logging_steps = 5

    class Control:
        should_training_stop = False

    model, seen, control = torch.nn.Linear(1, 1, bias=False), monitor(), Control()
    seen.on_train_begin(Arguments(), State(), control, model=model)
    for step in range(5, 31, 5):  # every look is healthy; accuracy is above its bound from the events at 20 on
        State.global_step = step
        torch.nn.init.constant_(model.weight, step)
        seen.on_step_end(Arguments(), State(), control, model=model)
        logs = {"rewards/chosen": 0.1, "logps/chosen": -9.0, "rewards/accuracies": 1.0 if step >= 20 else 0.6}
        seen.on_log(Arguments(), State(), control, model=model, logs=logs)
        if control.should_training_stop:
            break
    assert step == 25 and seen.kept_step == 15 and model.weight.item() == 15
    assert len(seen.kept) <= 4


@pytest.mark.parametrize(
    ("events", "look", "words"),
    [
        ([[-20.0, -1.0, 0.7], [-20.0, -2.0, 0.7]], None, ""),  # lost 7.5 %
        ([[-20.0, -3.0, 0.7], [-20.0, -4.0, 0.7]], None, "lost 18% of their log-probability"),
        ([[-20.0, -9.0, 0.7]], None, ""),  # one event is no trend
        ([[-20.0, 3.0, 0.99], [-20.0, 4.0, 1.0]], None, "reward accuracy above 0.98 at 2 log events in a row"),
        ([[-20.0, 3.0, 0.99], [-20.0, 4.0, 0.97]], None, ""),
        ([], 2.1, "completions are 2.10 times as long as the truth"),
        ([], 0.4, "completions are 0.40 times as long as the truth"),
        ([], 1.9, ""),
    ],
)
def test_signs_of_collapse(events, look, words):
    seen = monitor()
    seen.recent = events
    seen.latest = None if look is None else Look(look, 1.0, 0.0, 0.0)
    assert (words in seen.sign()) if words else seen.sign() == ""


def test_a_start_outside_the_bounds_widens_them():
    seen = monitor()
    seen.start = Look(2.5, 1.0, 0.0, 0.0)
    assert seen.bounds() == (0.5, 5.0)
    seen.start = Look(0.4, 1.0, 0.0, 0.0)
    assert seen.bounds() == (0.2, 2.0)


def test_a_checkpoint_remembers_the_monitor():
    seen, again = monitor(), monitor()
    seen.recent, seen.start, seen.kept, seen.kept_step = [[-1.0, 0.5, 0.6]], Look(1.0, 0.5, 0.1, 0.2), {5: {"a": torch.ones(2)}}, 5
    again.load_state_dict(seen.state_dict())
    assert again.figures() == seen.figures() and again.start == seen.start and torch.equal(again.kept[5]["a"], seen.kept[5]["a"])


def test_looking_leaves_the_model_as_it_was(base, adapter, samples):
    model = PeftModel.from_pretrained(load(base, 16, machine()), adapter, is_trainable=True)
    model.train()
    codec, decode = load_codec(base), load_tokenizer(base).decode
    holes = Holes(list(read_parquet(samples / "valid.parquet", "")), codec, decode, 4, 12, 512)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attention = model.get_base_model().config._attn_implementation
    assert holes.look(model) == holes.look(model)
    assert model.training and model.get_base_model().config._attn_implementation == attention
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert Holes([], codec, decode, 4, 12, 512).questions == []
