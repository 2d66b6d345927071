"""Our training against loops that know nothing of it: same rows, order and start, so the same losses."""

import json
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import SFTTrainer

from core.records import write_jsonl
from phase2_train import dpo, machine, memory, sft
from phase2_train.params import DpoParams, FilterParams, LoraParams, MonitorParams, SftParams
from phase2_train.rows import load_codec, read_rows

STEPS, WARMUP = 50, 0.1
PARAMS = SftParams(
    bits=16, engine="trl", lora=LoraParams(r=4, alpha=8, dropout=0.0), lr=0.003, warmup_share=WARMUP, epochs=1, max_steps=STEPS, batch=2,
    accumulate=1, eval_rows=8, eval_steps=STEPS, patience=0, save_steps=0,
    filter=FilterParams(top_share=0.0, bottom_share=0.0, max_nats=0.0, rows_per_file=2), max_row_tokens=512, seed=5,
)  # fmt: skip
CPU = machine.choose(machine.Found(None))


class Recorded(SFTTrainer):
    """Remembers each step's rows and loss."""

    def training_step(self, model, inputs, *rest):
        self.rows = getattr(self, "rows", [])
        self.losses = getattr(self, "losses", [])
        self.rows.append([ids[kept].tolist() for ids, kept in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)])
        loss = super().training_step(model, inputs, *rest)
        self.losses.append(loss.item())
        return loss


def trained(base, samples, tmp_path, params=PARAMS, chosen=CPU, kind=Recorded, recompute=False):
    rows = read_rows(samples / "train.parquet", load_codec(base), params.max_row_tokens)
    trainer = kind(
        model=sft.load_trainable(base, params, CPU),
        args=sft.trainer_config(params, tmp_path, chosen, recompute),
        train_dataset=sft.dataset(rows),
        eval_dataset=sft.dataset(rows[:1]),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    trainer.args.eval_on_start, trainer.args.eval_strategy = False, "no"
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return rows, trainer


def rate(step: int) -> float:
    """Linear warm-up, then half a cosine down to nothing."""
    warmup = math.ceil(STEPS * WARMUP)
    if step < warmup:
        return PARAMS.lr * step / warmup
    return PARAMS.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup)))


def test_fifty_steps_are_those_of_a_loop_written_by_hand(base, samples, tmp_path):
    rows, ours = trained(base, samples, tmp_path)
    start_of = {tuple(row.ids): row.start for row in rows}
    torch.manual_seed(PARAMS.seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    model.train()
    losses = []
    for step, batch in enumerate(ours.rows):
        total, count = torch.zeros(()), 0
        for ids in batch:  # one row at a time: no padding, no mask, no collator
            start = start_of[tuple(ids)]
            logits = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
            total = total + cross_entropy(logits, torch.tensor(ids[start:]), reduction="sum")
            count += len(ids) - start
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.step()
        optimizer.zero_grad()
        losses.append((total / count).item())
    assert len(losses) == STEPS and losses[-1] < losses[0]
    assert ours.losses == pytest.approx(losses, abs=1e-5)


def test_the_command_loses_what_a_plain_trl_script_loses(base, samples, tmp_path):
    from eval.bench import plain_trl

    params = PARAMS.model_copy(update={"max_steps": 20, "eval_steps": 20})
    sft.run(samples, base, tmp_path / "sft", params)
    lines = (tmp_path / "sft" / "dvclive" / "plots" / "metrics" / "loss.tsv").read_text().splitlines()[1:]
    mine = [float(line.split("\t")[1]) for line in lines]
    codec = load_codec(base)
    for split in ("train", "valid"):
        data = sft.dataset(read_rows(samples / f"{split}.parquet", codec, 512)).to_list()
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    job = PARAMS.model_dump(include={"bits", "lora", "lr", "warmup_share", "epochs", "batch", "accumulate", "seed"})
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "valid")}
    plain_trl.main({**job, **files, "base": str(base), "out": str(tmp_path), "steps": 20, "log_steps": sft.LOG_STEPS})
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(mine) == 20 // sft.LOG_STEPS
    assert mine == pytest.approx([loss for _, loss in result["losses"]], abs=1e-5)
    metrics = json.loads((tmp_path / "sft" / "metrics.json").read_text())
    assert metrics["best_step"] == 20
    assert metrics["valid_loss"] == pytest.approx(result["valid_loss"], abs=1e-5)


class Losses(SFTTrainer):
    """Remembers each step's loss."""

    def training_step(self, *arguments):
        loss = super().training_step(*arguments)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


def test_rows_laid_end_to_end_lose_what_padded_rows_lose(base, samples, tmp_path):
    """What a GPU with FlashAttention does; under sdpa it is slow and right, because transformers masks by the positions."""
    params = PARAMS.model_copy(update={"max_steps": 4, "batch": 4})
    padded = trained(base, samples, tmp_path, params, CPU, Losses)[1].losses
    _, end_to_end = trained(base, samples, tmp_path, params, CPU._replace(packing=True), Losses)
    assert end_to_end.padding_free and end_to_end.losses == pytest.approx(padded, abs=1e-5)


def losses_of(out) -> list[float]:
    lines = (out / "dvclive" / "plots" / "metrics" / "loss.tsv").read_text().splitlines()[1:]
    return [float(line.split("\t")[1]) for line in lines]


def test_a_run_out_of_memory_goes_on_from_its_checkpoint_at_half_the_rows_and_loses_the_same(base, samples, tmp_path, monkeypatch):
    params = PARAMS.model_copy(update={"max_steps": 10, "eval_steps": 10, "batch": 4, "save_steps": 3})
    unbroken = sft.run(samples, base, tmp_path / "a" / "sft", params)
    usual, seen = sft.MiddleTrainer.training_step, []

    def tight(self, model, inputs, *rest):
        rows = len(inputs["input_ids"])
        seen.append((self.state.global_step, rows))
        if rows > 2 and self.state.global_step == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return usual(self, model, inputs, *rest)

    monkeypatch.setattr(sft.MiddleTrainer, "training_step", tight)
    halved = sft.run(samples, base, tmp_path / "b" / "sft", params)
    assert (5, 4) in seen and [step for step, rows in seen if rows == 2] == [step for step in range(3, 10) for _ in range(2)]
    assert losses_of(tmp_path / "b" / "sft") == pytest.approx(losses_of(tmp_path / "a" / "sft"), abs=1e-5)
    assert halved["valid_loss"] == pytest.approx(unbroken["valid_loss"], abs=1e-5)
    record = json.loads((tmp_path / "b" / "runs" / "sft.json").read_text())["choices"]
    assert record["retry"] == {"value": "2 x 2", "reason": "out of memory at 4 x 1"}


def test_recomputed_activations_lose_what_kept_ones_lose(base, samples, tmp_path):
    params = PARAMS.model_copy(update={"max_steps": 3})
    kept = trained(base, samples, tmp_path, params, CPU, Losses)[1].losses
    _, again = trained(base, samples, tmp_path, params, CPU, Losses, recompute=True)
    assert again.model.is_gradient_checkpointing and again.losses == pytest.approx(kept, abs=1e-5)


@pytest.mark.slow
def test_dpo_with_recomputed_activations_is_dpo(base, samples, tmp_path, monkeypatch):
    sft.run(samples, base, tmp_path / "sft", PARAMS.model_copy(update={"max_steps": 3, "eval_steps": 3}))
    pairs = [{"prefix": f"x{n} = ", "suffix": "\n", "chosen": f"{n}", "rejected": f"{n}\nprint"} for n in range(8)]
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    params = DpoParams(
        beta=0.2, loss=["sigmoid", "sft"], loss_weights=[1.0, 1.0], lr=0.001, warmup_share=0.0, epochs=1, max_steps=5, batch=2,
        accumulate=1, save_steps=100, seed=5, monitor=MonitorParams(
            every=9, holes=0, max_new_tokens=1, patience=9, max_chosen_fall=9.0, max_accuracy=1.0, length_ratio=(0.0, 9.0)
        ),
    )  # fmt: skip
    files = (tmp_path / "pairs.jsonl", base, tmp_path / "sft" / "adapter")
    kept = dpo.run(*files, tmp_path / "kept", params, PARAMS)
    monkeypatch.setattr(memory, "checkpointing", lambda *_: machine.Choice("on", "asked for by a test"))
    again = dpo.run(*files, tmp_path / "again", params, PARAMS)
    assert again["first_loss"] == pytest.approx(kept["first_loss"], abs=1e-5)
    first, second = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("kept", "again"))
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)
