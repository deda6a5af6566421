"""Cutting a split into shards by content."""

from hypothesis import given
from hypothesis import strategies as st

from cache.index import ImageSource
from cache.spec import CacheSpec
from preprocess.build.plan import cut, shard_key

image_ids = st.lists(st.integers(0, 2**40), unique=True, max_size=600)


def chunks(ids, mean):
    ends = cut(ids, mean)
    return [tuple(ids[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]


@given(image_ids, st.integers(1, 40))
def test_shards_hold_every_image_once_in_order_and_keep_to_their_sizes(ids, mean):
    found = chunks(ids, mean)
    assert [image for chunk in found for image in chunk] == ids
    assert all(len(chunk) >= mean / 2 for chunk in found[:-1])
    assert all(0 < len(chunk) <= 2 * mean for chunk in found)


def test_the_mean_is_about_what_was_asked_for():
    for mean in (16, 128):
        sizes = [len(chunk) for chunk in chunks(list(range(1_000, 65_000, 3)), mean)]
        assert 0.85 * mean < sum(sizes) / len(sizes) < 1.15 * mean


@given(st.integers(0, 2000), st.integers(10**6, 10**7), st.booleans())
def test_an_image_that_comes_or_goes_moves_only_the_shards_around_it(place, newcomer, comes):
    ids = list(range(100, 10_100, 5))
    place = min(place, len(ids) - 1)
    other = [*ids[:place], newcomer, *ids[place:]] if comes else [*ids[:place], *ids[place + 1 :]]
    before, after = set(chunks(ids, 32)), set(chunks(other, 32))
    assert len(before - after) <= 8
    assert len(after - before) <= 8


def test_a_key_depends_on_all_that_decides_the_records():
    sources = (ImageSource(1, "a.jpg", 100, 7), ImageSource(2, "b.jpg", 200, 8))
    keys = {
        shard_key(CacheSpec(), sources),
        shard_key(CacheSpec(side=256), sources),
        shard_key(CacheSpec(crowd="drop"), sources),
        shard_key(CacheSpec(), sources[:1]),
        shard_key(CacheSpec(), (sources[0]._replace(annotations=9), sources[1])),
        shard_key(CacheSpec(), (sources[0]._replace(file_bytes=101), sources[1])),
        shard_key(CacheSpec(), (sources[0]._replace(file_name="c.jpg"), sources[1])),
        shard_key(CacheSpec(), sources[::-1]),
    }
    assert len(keys) == 8
    same = shard_key(CacheSpec(limit=5, images="all", shard_samples=7), (sources[0]._replace(content=5), sources[1]))
    assert same in keys
