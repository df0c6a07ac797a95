"""Summaries in one pass are those of all values at once."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from training.tables.sketches import Counts, Distinct, Moments, Sample, hash_numbers, hash_texts


@pytest.mark.parametrize("different", [1, 100, 999])
def test_few_values_are_counted_exactly(different: int) -> None:
    distinct = Distinct(1000)
    values = np.random.default_rng(0).permutation(np.arange(5000) % different).astype(np.float64)
    for part in np.array_split(values, 7):
        distinct.add(hash_numbers(part))
    assert distinct.exact
    assert distinct.count == different


@pytest.mark.parametrize("different", [5000, 50_000, 500_000])
def test_many_values_are_estimated(different: int) -> None:
    distinct = Distinct(4096)
    for part in np.array_split(np.arange(2 * different) % different, 9):
        distinct.add(hash_numbers(part))
    assert not distinct.exact
    assert distinct.count == pytest.approx(different, rel=5 / np.sqrt(4096))


def test_equal_numbers_have_equal_hashes() -> None:
    assert len(np.unique(hash_numbers(np.array([0.0, -0.0])))) == 1
    assert np.array_equal(hash_numbers(np.array([0.5], np.float32)), hash_numbers(np.array([0.5])))
    assert np.array_equal(hash_numbers(np.array([7], np.int8)), hash_numbers(np.array([7], np.int64)))
    assert len(np.unique(hash_numbers(np.array([2**53, 2**53 + 1])))) == 2
    assert np.array_equal(hash_texts(pa.array(["a", "b"]))[:1], hash_texts(pa.array(["a"])))


def count(texts: list[str], limit: int, parts: int) -> Counts:
    counts = Counts(limit)
    for part in np.array_split(np.array(texts), parts):
        found = Counter(part.tolist())
        counts.add(pa.array(list(found)), pa.array(list(found.values())))
    return counts


def test_texts_are_counted_exactly_up_to_the_limit() -> None:
    texts = np.random.default_rng(0).choice([f"t{i}" for i in range(90)], size=5000).tolist()
    counts = count(texts, 100, 8)
    assert dict(counts.most_frequent()) == Counter(texts)
    assert counts.missed == 0
    assert len(counts) == 90
    ordered = counts.most_frequent()
    assert ordered == sorted(ordered, key=lambda pair: (-pair[1], pair[0]))


@pytest.mark.parametrize("seed", range(5))
def test_frequent_texts_are_found_among_very_many(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rare = [f"r{i}" for i in range(20_000)]
    frequent = [f"f{i}" for i in range(10) for _ in range(400)]
    texts = generator.permutation(np.array([*rare, *frequent])).tolist()
    if seed == 0:
        texts.sort()  # the frequent ones first
    elif seed == 1:
        texts.sort(reverse=True)
    counts = count(texts, 500, 40)
    found = dict(counts.most_frequent())
    for i in range(10):
        assert 400 - counts.missed <= found[f"f{i}"] <= 400
    assert counts.missed < 100
    assert len(counts) <= 1000


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_moments(offset: float) -> None:
    values = np.random.default_rng(0).normal(size=10_000) + offset
    moments = Moments()
    for part in (values[:1], values[1:1], values[1:7000], values[7000:]):
        moments.add(part)
    assert moments.count == 10_000
    assert (moments.minimum, moments.maximum) == (values.min(), values.max())
    assert moments.mean == pytest.approx(values.mean(), rel=1e-12)
    assert moments.std == pytest.approx(values.std(), rel=1e-6)


def test_moments_of_nothing() -> None:
    assert (Moments().count, Moments().std) == (0, 0.0)


@pytest.mark.parametrize("size", [1, 2, 999, 1000])
def test_medians_are_exact_up_to_the_limit(size: int) -> None:
    values = np.random.default_rng(size).lognormal(size=size).astype(np.float32)
    sample = Sample(1000)
    for part in np.array_split(values, 3):
        sample.add(part)
    assert sample.median() == np.float32(np.median(values.astype(np.float64)))


def test_medians_of_many_are_those_of_a_sample() -> None:
    values = np.sort(np.random.default_rng(0).uniform(size=200_000)).astype(np.float32)  # the order doesn't matter
    medians = []
    for seed in range(20):
        sample = Sample(2000, seed)
        for part in np.array_split(values, 50):
            sample.add(part)
        medians.append(sample.median() or 0.0)
    assert np.std(medians) == pytest.approx(0.5 / np.sqrt(2000), rel=0.5)
    assert np.mean(medians) == pytest.approx(0.5, abs=0.02)
    again = Sample(2000, 0)
    for part in np.array_split(values, 50):
        again.add(part)
    assert again.median() == medians[0]


def test_the_median_of_nothing() -> None:
    sample = Sample(10)
    assert sample.median() is None
    sample.add(np.zeros(0, dtype=np.float32))
    assert sample.median() is None
