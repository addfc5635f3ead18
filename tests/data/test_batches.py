from __future__ import annotations

from collections import Counter
from itertools import chain, islice, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lthlib._torchvision import torchvision
from lthlib.data import (
    Batches,
    DataSettings,
    EvaluationBatches,
    Images,
    Tensors,
)
from lthlib.data.batches import crop_and_flip, normalise
from lthlib.errors import ConfigError

PLAIN = DataSettings()


def numbered(count: int, side: int = 1) -> Images:
    """Images whose every pixel is their number, which is also their label."""
    labels = torch.arange(count)
    return Images(labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, side, side, 1), labels)


def batches(
    part: Images | Tensors, data: DataSettings = PLAIN, size: int = 4, **kw: object
) -> Batches:
    options = {"seed": 0, "stream": "train", "device": "cpu"} | kw
    return Batches(part, data, size, **options)  # type: ignore[arg-type]


def labels_of(stream: Batches, count: int, start: int = 0) -> list[list[int]]:
    return [labels.tolist() for _, labels in islice(stream.stream(start), count)]


def crop_one(rows: list[list[int]], top: int, left: int, flip: bool) -> list[list[int]]:
    image = torch.tensor(rows, dtype=torch.uint8)[None, :, :, None]
    where = (torch.tensor([top]), torch.tensor([left]), torch.tensor([flip]))
    cropped: list[list[int]] = crop_and_flip(image, 1, *where)[0, :, :, 0].tolist()
    return cropped


def test_a_crop_at_the_padding_is_the_image_itself() -> None:
    assert crop_one([[1, 2], [3, 4]], 1, 1, False) == [[1, 2], [3, 4]]


def test_a_crop_at_the_corner_shows_raw_zeros() -> None:
    assert crop_one([[1, 2], [3, 4]], 0, 0, False) == [[0, 0], [0, 1]]
    assert crop_one([[1, 2], [3, 4]], 2, 1, False) == [[3, 4], [0, 0]]


def test_the_flip_comes_after_the_crop() -> None:
    assert crop_one([[1, 2], [3, 4]], 1, 1, True) == [[2, 1], [4, 3]]
    assert crop_one([[1, 2], [3, 4]], 0, 0, True) == [[0, 0], [1, 0]]


def test_augmentation_equals_torchvision() -> None:
    mean, std, padding = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], 2
    cases = list(product(range(5), range(5), (False, True)))
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(cases), 6, 8, 3), dtype=torch.uint8, generator=draw)
    top, left, flip = (torch.tensor(values) for values in zip(*cases, strict=True))
    ours = normalise(
        crop_and_flip(images, padding, top, left, flip),
        torch.tensor(mean),
        torch.tensor(std),
        torch.float32,
    )

    functional = torchvision.transforms.functional
    for image, (y, x, mirrored), result in zip(images, cases, ours, strict=True):
        expected = functional.crop(functional.pad(image.permute(2, 0, 1), [padding]), y, x, 6, 8)
        expected = functional.hflip(expected) if mirrored else expected
        expected = functional.normalize(expected.float() / 255, mean, std)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_every_offset_and_flip_is_as_likely() -> None:
    count = 9000
    pixels = torch.arange(1, 17, dtype=torch.uint8).view(1, 4, 4, 1).expand(count, -1, -1, -1)
    part = Images(pixels, torch.zeros(count, dtype=torch.int64))
    stream = batches(part, DataSettings(padding=1, flip=True), count).stream()
    images = (next(stream)[0] * 255).round().long()
    # The middle of a crop is never padding: its two pixels tell the offset and the flip.
    counts = Counter(map(tuple, images[:, 0, 1, 1:3].tolist()))
    assert len(counts) == 18
    assert max(abs(n - count / 18) for n in counts.values()) < 5 * (count / 18) ** 0.5


def test_images_come_normalised_in_channels_last_with_their_labels() -> None:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (10, 6, 5, 3), dtype=torch.uint8, generator=draw)
    data = DataSettings(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images, labels = next(batches(Images(pixels, torch.arange(10)), data).stream())
    assert images.shape == (4, 3, 6, 5)
    assert images.is_contiguous(memory_format=torch.channels_last)
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    expected = (pixels[labels] / 255 - mean) / std
    torch.testing.assert_close(images.permute(0, 2, 3, 1), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_inputs_have_the_type_asked_for(dtype: torch.dtype) -> None:
    assert next(batches(numbered(5), dtype=dtype).stream())[0].dtype == dtype
    floats = Tensors(torch.rand(5, 2), torch.arange(5))
    assert next(batches(floats, dtype=dtype).stream())[0].dtype == dtype


def test_one_epoch_shows_every_image_once() -> None:
    stream = batches(numbered(10))
    assert stream.steps_per_epoch == 3
    first, second = labels_of(stream, 3), labels_of(stream, 3, start=3)
    assert [len(labels) for labels in first] == [4, 4, 2]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second


@given(
    count=st.integers(1, 23),
    size=st.integers(1, 9),
    start=st.integers(0, 40),
)
@settings(max_examples=40)
def test_a_stream_started_later_yields_the_same(count: int, size: int, start: int) -> None:
    data = DataSettings(padding=1, flip=True)
    stream = batches(numbered(count, side=2), data, size)
    whole = list(islice(stream.stream(), start + 4))
    resumed = list(islice(stream.stream(start), 4))
    for (images, labels), (repeated, same) in zip(whole[start:], resumed, strict=True):
        assert torch.equal(images, repeated)
        assert torch.equal(labels, same)


def test_seed_and_stream_name_change_the_order() -> None:
    orders = [
        labels_of(batches(numbered(20), seed=seed, stream=stream), 5)
        for seed, stream in ((0, "lower"), (0, "upper"), (1, "lower"))
    ]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_padding_and_flip_leave_the_order_as_it_is() -> None:
    augmented = batches(numbered(20), DataSettings(padding=2, flip=True))
    assert labels_of(augmented, 9) == labels_of(batches(numbered(20)), 9)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    next(batches(numbered(9), DataSettings(padding=1, flip=True)).stream())
    assert torch.equal(torch.get_rng_state(), before)


def test_plain_tensors_are_only_shuffled() -> None:
    tokens = torch.arange(40).view(8, 5)
    data = DataSettings(padding=1, flip=True, mean=(0.5,), std=(0.1,))
    inputs, labels = next(batches(Tensors(tokens, torch.arange(8)), data).stream())
    assert inputs.dtype == torch.int64
    assert torch.equal(inputs, tokens[labels])


def test_a_selected_part_yields_its_rows_only() -> None:
    part = numbered(10).select(torch.tensor([1, 3, 5, 7])).select(torch.tensor([0, 2]))
    assert part.labels.tolist() == [1, 5]
    assert part.inputs.flatten().tolist() == [1, 5]
    images, labels = next(batches(part).stream())
    assert (images.flatten() * 255).round().tolist() == labels.tolist()


@pytest.mark.parametrize("size", [1, 3, 10, 1000])
def test_evaluation_shows_each_image_once_in_order(size: int) -> None:
    evaluation = EvaluationBatches(numbered(10), PLAIN, size, device="cpu")
    assert (len(evaluation), evaluation.images) == (-(-10 // size), 10)
    for _ in range(2):
        batches_of_labels: list[Tensor] = [labels for _, labels in evaluation]
        assert len(batches_of_labels) == len(evaluation)
        assert torch.cat(batches_of_labels).tolist() == list(range(10))


def test_evaluation_does_not_augment() -> None:
    evaluation = EvaluationBatches(
        numbered(3, side=2), DataSettings(padding=2, flip=True), device="cpu"
    )
    ((images, _),) = evaluation
    assert (images * 255).round().amin((1, 2, 3)).tolist() == [0, 1, 2]


def test_an_empty_part_has_no_evaluation_batches() -> None:
    evaluation = EvaluationBatches(numbered(0), PLAIN, device="cpu")
    assert (len(evaluation), evaluation.images, list(evaluation)) == (0, 0, [])


def test_what_gives_no_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 images give no batch of 4"):
        batches(numbered(0))
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        batches(numbered(3), size=0)


def test_constants_of_other_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"mean holds 3 numbers.*1 channels"):
        batches(numbered(3), DataSettings(mean=(0.1, 0.2, 0.3)))
    with pytest.raises(ConfigError, match="std holds 2 numbers"):
        EvaluationBatches(numbered(3), DataSettings(std=(0.1, 0.2)), device="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_sees_what_the_cpu_sees() -> None:
    data = DataSettings(padding=1, flip=True)
    part = numbered(30, side=4).select(torch.arange(3, 23))
    streams = (batches(part, data, device=device).stream() for device in ("cpu", "cuda"))
    for (images, labels), (on_cuda, same) in islice(zip(*streams, strict=True), 12):
        torch.testing.assert_close(images, on_cuda.cpu(), rtol=0, atol=1e-6)
        assert torch.equal(labels, same.cpu())


@pytest.mark.parametrize("share", [(0, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("at_once", [1, 1 << 20])
def test_a_batch_is_what_the_plan_of_its_epoch_says(
    share: tuple[int, int], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many batches are made at once, and in whatever order they are asked for."""
    monkeypatch.setattr("lthlib.data.batches.AT_ONCE", at_once)
    pixels = torch.randint(256, (11, 4, 4, 3), dtype=torch.uint8)
    part = Images(pixels, torch.arange(11))
    data = DataSettings(padding=1, flip=True, mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1))
    source = batches(part, data, 4, share=share)
    for step in (1, 0, 5, 2, 3, 1):
        plan = source.draw(step // 3)
        number = step % 3
        rows = plan[0, 4 * number + share[0] : min(4 * number + 4, 11) : share[1]]
        inputs, labels = source.batch(step)
        assert labels.equal(rows) and len(labels) == source.size(step)
        columns = [int((plan[0] == row).nonzero()) for row in rows]
        expected, _ = source.cut(plan[:, columns])
        assert inputs.equal(expected)
        assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert source.draw(0).data_ptr() == source.draw(1).data_ptr()
