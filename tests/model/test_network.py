"""The network as a whole: size, masks, causality, gradients, batching, export."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.heads import JointHead
from ovoad_model.network.network import OVOAD, NetworkOutput
from ovoad_model.network.size import image_side, parameter_counts

torch.set_num_threads(2)

TINY = NetworkConfig(
    feature_width=24,
    width=32,
    past=6,
    neighbours=4,
    groups=3,
    heads=4,
    dntr_layers=2,
    cluster_layers_before=2,
    cluster_layers_after=1,
    text_width=20,
    current_width=20,
    joint_width=16,
    head_hidden=64,
)
DNTRS: list[Any] = ["decoder", "encoder", "encoder_cross"]

Windows = tuple[Tensor, Tensor, Tensor, Tensor]


def build(**changes: Any) -> OVOAD:
    torch.manual_seed(0)
    return OVOAD(NetworkConfig(**(vars(TINY) | changes))).eval()


def draw_windows(batch: int = 3, seed: int = 1) -> Windows:
    generator = torch.Generator().manual_seed(seed)
    past_mask = torch.rand(batch, 6, generator=generator) < 0.6
    neighbours_mask = torch.rand(batch, 4, generator=generator) < 0.6
    past_mask[0], neighbours_mask[:, -1] = False, True
    return (
        torch.randn(batch, 6, 24, generator=generator),
        torch.randn(batch, 4, 24, generator=generator),
        past_mask,
        neighbours_mask,
    )


def assert_equal(found: NetworkOutput, expected: NetworkOutput) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_size_is_the_papers() -> None:
    counts = parameter_counts(NetworkConfig())
    assert counts["DNTR"] == pytest.approx(37.8e6, abs=0.1e6)
    assert counts["AC"] == pytest.approx(66.2e6, abs=0.1e6)
    heads = counts["current head"] + counts["joint head of groups and video"]
    assert heads == pytest.approx(4.6e6, abs=0.1e6)
    assert image_side(counts) == pytest.approx(108.6e6, abs=0.3e6)


def test_counts_by_part_miss_no_parameter() -> None:
    config = NetworkConfig(**(vars(TINY) | {"normalisation": "pre", "current_width": 12}))
    expected = sum(parameter.numel() for parameter in OVOAD(config).parameters())
    assert sum(parameter_counts(config).values()) == expected


def test_config_survives_json() -> None:
    config = NetworkConfig(width=32, dntr="encoder_cross", score_alpha=0.5, score_clusters=False)
    assert NetworkConfig.from_json(config.to_json()) == config


def test_unknown_setting_is_named() -> None:
    with pytest.raises(ValueError, match=r"found unknown network settings \['depth'\]"):
        NetworkConfig.from_json('{"depth": 3}')


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ('{"width": 30}', "found width 30, expected a multiple of its 8 heads"),
        ('{"dntr": "gru"}', "found dntr 'gru', expected one of decoder, encoder, encoder_cross"),
        ('{"groups": 0}', "found groups 0, expected 1 at least"),
        ('{"dropout": 1.0}', "found dropout 1.0, expected 0 to below 1"),
    ],
)
def test_impossible_config_is_refused(members: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkConfig.from_json(members)


def test_outputs_have_their_shapes_and_unit_norm() -> None:
    output = build()(*draw_windows())
    assert output.current.shape == (3, 20)
    assert output.groups.shape == (3, 3, 16)
    assert output.video.shape == (3, 16)
    assert output.assignment.shape == (3, 4, 3)
    for embedding in output[:3]:
        torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(embedding.shape[:-1]))


@pytest.mark.parametrize("dntr", DNTRS)
@pytest.mark.parametrize("normalisation", ["post", "pre"])
def test_missing_frames_change_nothing_whatever_they_hold(dntr: Any, normalisation: Any) -> None:
    network = build(dntr=dntr, normalisation=normalisation)
    past, neighbours, past_mask, neighbours_mask = draw_windows()
    expected = network(past, neighbours, past_mask, neighbours_mask)
    past = past.masked_fill(~past_mask[:, :, None], float("nan"))
    neighbours = neighbours.masked_fill(~neighbours_mask[:, :, None], 1e30)
    assert_equal(network(past, neighbours, past_mask, neighbours_mask), expected)


@pytest.mark.parametrize("dntr", DNTRS)
def test_missing_frames_own_no_group(dntr: Any) -> None:
    windows = draw_windows()
    assignment = build(dntr=dntr)(*windows).assignment
    torch.testing.assert_close(assignment.sum(dim=2), windows[3].float())


@pytest.mark.parametrize("dntr", DNTRS)
def test_later_neighbours_leave_earlier_ones_as_they_were(dntr: Any) -> None:
    network = build(dntr=dntr)
    past, neighbours = torch.randn(2, 6, 32), torch.randn(2, 4, 32)
    past_mask, neighbours_mask = torch.ones(2, 6) > 0, torch.ones(2, 4) > 0
    before = network.dntr(past, neighbours, past_mask, neighbours_mask)
    for changed in range(1, 4):
        other = neighbours.clone()
        other[:, changed] += 1.0
        after = network.dntr(past, other, past_mask, neighbours_mask)
        torch.testing.assert_close(after[:, :changed], before[:, :changed])
        assert not torch.allclose(after[:, changed:], before[:, changed:], atol=1e-3)


@pytest.mark.parametrize("dntr", DNTRS)
@pytest.mark.parametrize("place", range(6))
def test_every_past_frame_is_heard(dntr: Any, place: int) -> None:
    network = build(dntr=dntr)
    past, neighbours, past_mask, neighbours_mask = draw_windows()
    past_mask[:] = True
    before = network(past, neighbours, past_mask, neighbours_mask).current
    past[:, place] += 1.0
    after = network(past, neighbours, past_mask, neighbours_mask).current
    assert (after - before).abs().amax(dim=1).min() > 1e-5


@pytest.mark.parametrize("dntr", DNTRS)
def test_nothing_before_is_finite_in_both_directions(dntr: Any) -> None:
    network = build(dntr=dntr).train()
    past, neighbours, past_mask, neighbours_mask = draw_windows()
    past_mask[:] = False
    neighbours_mask[:, :-1] = False
    output = network(past, neighbours, past_mask, neighbours_mask)
    sum(tensor.sum() for tensor in output).backward()
    assert all(tensor.isfinite().all() for tensor in output)
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)


def test_windows_of_a_batch_do_not_touch_each_other() -> None:
    network, windows = build(), draw_windows(5)
    together = network(*windows)
    alone = [network(*(tensor[row : row + 1] for tensor in windows)) for row in range(5)]
    assert_equal(together, NetworkOutput(*(torch.cat(parts) for parts in zip(*alone, strict=True))))


@pytest.mark.parametrize("dntr", DNTRS)
@pytest.mark.parametrize("unit", ["slot", "plain"])
@pytest.mark.parametrize("normalisation", ["post", "pre"])
def test_gradients_reach_every_parameter(dntr: Any, unit: Any, normalisation: Any) -> None:
    network = build(
        dntr=dntr, object_centric_unit=unit, normalisation=normalisation, current_width=12
    ).train()
    output = network(*draw_windows(8))
    text = torch.randn(8, 20)
    joint, current = network.embed_text_joint(text), network.embed_text_current(text)
    foreground = network.foreground(output.assignment, output.groups, joint)
    loss = (
        network.scale_joint() * (output.video * joint).sum()
        + network.scale_current() * (output.current * current).sum()
        + (foreground * torch.randn(8, 4)).sum()
    )
    loss.backward()
    silent = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 1e-9
    ]
    assert silent == []


@pytest.mark.parametrize("width", [24, 32])
def test_current_head_starts_as_the_encoders_projection(width: int) -> None:
    network = build(width=width)
    projection, features = torch.randn(24, 20), torch.randn(5, 24)
    network.initialise_current_head(projection)
    found = network.current_head(network.input_map(features))
    torch.testing.assert_close(found, features @ projection, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("normalisation", ["post", "pre"])
def test_network_starts_near_the_encoders_zero_shot(normalisation: Any) -> None:
    network = build(
        feature_width=128, width=128, text_width=128, current_width=128, joint_width=64,
        head_hidden=512, normalisation=normalisation,
    )  # fmt: skip
    texts = torch.nn.functional.normalize(torch.randn(50, 128), dim=1)
    network.start_from_encoder(torch.eye(128), texts)
    # windows that show one caption each, its frames near its text
    shown = texts[:20, None].expand(-1, 10, -1) * 128**0.5 + 0.3 * torch.randn(20, 10, 128)
    there = torch.ones(20, 6, dtype=torch.bool), torch.ones(20, 4, dtype=torch.bool)
    output = network(shown[:, :6], shown[:, 6:], *there)
    right = torch.arange(20)
    current = output.current @ network.embed_text_current(texts).T
    assert (current.argmax(dim=1) == right).all()
    words = network.embed_text_joint(texts)
    assert ((output.video @ words.T).argmax(dim=1) == right).all()
    assert ((output.groups @ words.T).argmax(dim=2) == right[:, None]).all()


def test_joint_head_becomes_exactly_linear() -> None:
    head: Any = JointHead(6, hidden=16, joint=4)
    wanted, vectors = torch.randn(3, 6), torch.randn(10, 6)
    head.become_linear(wanted)
    with torch.no_grad():
        head[2].weight[:, 6:] = 0.0
        expected = vectors @ wanted.T
        torch.testing.assert_close(head(vectors)[:, :3], expected)
    with pytest.raises(ValueError, match="found a head of 16 hidden units, expected 18 at least"):
        head.become_linear(torch.randn(9, 6))


def test_projection_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found projection \(24, 19\), expected \(24, 20\)"):
        build().initialise_current_head(torch.randn(24, 19))


def test_text_stays_in_the_encoders_space_where_widths_agree() -> None:
    text = torch.nn.functional.normalize(torch.randn(3, 20), dim=1)
    torch.testing.assert_close(build().embed_text_current(text), text)
    assert build(current_width=12).embed_text_current(text).shape == (3, 12)


def test_temperature_starts_at_the_papers_and_is_capped() -> None:
    network = build()
    assert 1 / network.scale_joint().item() == pytest.approx(0.07, rel=1e-6)
    with torch.no_grad():
        network.scale_joint.log_scale.fill_(9.0)
    assert network.scale_joint().item() == pytest.approx(100.0, rel=1e-5)
    network.clip_scales()
    network.scale_joint().backward()
    gradient = network.scale_joint.log_scale.grad
    assert gradient is not None
    assert gradient.item() == pytest.approx(100.0, rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("dntr", DNTRS)
@pytest.mark.filterwarnings("ignore")  # of the exporter about its own parts
def test_onnx_runtime_agrees_at_another_batch_size(dntr: Any, tmp_path: Path) -> None:
    network, path = build(dntr=dntr), tmp_path / "network.onnx"
    names = ["past", "neighbours", "past_mask", "neighbours_mask"]
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        network,
        draw_windows(2),
        path,
        input_names=names,
        output_names=list(NetworkOutput._fields),
        dynamic_shapes=tuple({0: batch} for _ in names),
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path)
    windows = draw_windows(5)
    feed = {name: tensor.numpy() for name, tensor in zip(names, windows, strict=True)}
    with torch.inference_mode():
        expected = network(*windows)
    for found, tensor in zip(session.run(None, feed), expected, strict=True):
        np.testing.assert_allclose(found, tensor.numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore")  # of the compiler about its own parts
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_compiled_network_agrees() -> None:
    network = build(dntr_layers=1, cluster_layers_before=1)
    windows = draw_windows()
    compiled = torch.compile(network, fullgraph=True)
    with torch.inference_mode():
        assert_equal(compiled(*windows), network(*windows))
