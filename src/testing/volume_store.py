"""The contract that every VolumeStore keeps, as a pytest class to subclass."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ..domain.errors import InputError, UsageError
from ..domain.geometry.grid import UNITS, Box, Grid, Shape3
from ..domain.labels.label_map import Label, LabelTable
from ..domain.reading import Reading
from ..domain.volume import Volume
from ..ports.volume_store import OpenVolume, VolumeSink, VolumeStore
from .strategies import DTYPES, boxes, volumes

# The fixture is made for each test, and every example in it uses references of its own.
_law = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


class VolumeReadingContract:
    """Promises of a store that reads. Subclass it, fill in the hooks, and pytest runs every one.

    ``place`` must not go through the store under test, so that a fault in writing cannot hide one in reading.

    Attributes:
        folder: an empty folder for the test's own use.
        dtypes: of the volumes that the format holds.
        max_channels: the most channels that the format holds.
        units: that the format can state.
        geometry: what the format can state: any affine, directions without shear, or voxel sizes and an origin alone.
        keeps_origin: whether the format states the place of the first voxel.
        keeps_channel_names: whether the format holds names of channels.
        largest_misfit: of a voxel's place as stored, in voxels; 0 where the format holds affines exactly.
    """

    folder: Path
    dtypes: Sequence[str] = DTYPES
    max_channels = 3
    units: Sequence[str] = UNITS
    geometry: Literal["affine", "directions", "spacing"] = "affine"
    keeps_origin = True
    keeps_channel_names = False
    largest_misfit = 0.0

    @pytest.fixture(autouse=True)
    def _fresh_store(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.store = self.make_store()

    def make_store(self) -> VolumeStore:
        """A new store."""
        raise NotImplementedError

    def new_reference(self) -> str:
        """A reference that nothing is stored under; another one at each call."""
        raise NotImplementedError

    def place(self, volume: Volume) -> str:
        """Store a volume, in its own dtype, without using the adapter; its reference."""
        raise NotImplementedError

    def place_foreign(self) -> str:
        """Store something that is no volume of this kind, under a name that suits one; nothing, if that cannot be."""
        return self.new_reference()

    def holdable(self, grid: Grid) -> Grid:
        """The grid nearest to one that the format can state."""
        unit = grid.unit if grid.unit in self.units else self.units[0]
        affine = np.diag([*grid.spacing, 1.0]) if self.geometry == "spacing" else grid.affine.copy()
        affine[:3, 3] = grid.affine[:3, 3] if self.keeps_origin else 0.0
        return Grid(grid.shape, affine, unit)

    def volumes(self, *, sheared: bool = False) -> st.SearchStrategy[Volume]:
        """Draw volumes that the format can hold."""
        drawn = volumes(self.dtypes, max_channels=self.max_channels, sheared=sheared and self.geometry == "affine")
        return drawn.map(lambda volume: replace(volume, grid=self.holdable(volume.grid)))

    def example(self, seed: int = 0, shape: Shape3 = (4, 3, 6)) -> Volume:
        """Make a volume of one channel that the format can hold."""
        affine = np.array([[0, -0.5, 0, 7], [0.25, 0, 0, -3], [0, 0, 2, 1], [0, 0, 0, 1]], dtype=np.float64)
        dtype = "int16" if "int16" in self.dtypes else self.dtypes[0]
        values = np.random.default_rng(seed).integers(0, 100 if np.dtype(dtype).itemsize == 1 else 1000, (1, *shape))
        return Volume(values.astype(dtype), self.holdable(Grid(shape, affine, "um")))

    def assert_same_grid(self, found: Grid, expected: Grid) -> None:
        """Compare grids as exactly as the format holds them."""
        if not self.largest_misfit:
            assert found == expected
        assert (found.shape, found.unit) == (expected.shape, expected.unit)
        assert expected.voxels_apart(found) <= self.largest_misfit

    @_law
    @given(data=st.data())
    def test_a_source_has_the_stored_grid_channels_and_dtype(self, data: st.DataObject) -> None:
        volume = data.draw(self.volumes(sheared=True))
        with self.store.open(self.place(volume)) as source:
            self.assert_same_grid(source.grid, volume.grid)
            assert source.channels == volume.channels
            assert source.dtype == volume.array.dtype
            assert source.slowest_axis in (0, 1, 2)
            assert all(isinstance(note, str) for note in source.notes)

    @_law
    @given(data=st.data())
    def test_any_box_reads_as_stored(self, data: st.DataObject) -> None:
        volume = data.draw(self.volumes())
        with self.store.open(self.place(volume)) as source:
            for box in (Box.whole(volume.grid.shape), data.draw(boxes(volume.grid.shape))):
                values = source.read(box)
                assert values.dtype == source.dtype
                np.testing.assert_array_equal(values, volume.array[(slice(None), *box.slices)])

    @_law
    @given(data=st.data())
    def test_any_channels_read_in_the_order_asked_for(self, data: st.DataObject) -> None:
        volume = data.draw(self.volumes())
        chosen = data.draw(st.lists(st.integers(0, volume.channels - 1), min_size=1, max_size=5))
        box = data.draw(boxes(volume.grid.shape))
        with self.store.open(self.place(volume)) as source:
            values = source.read(box, chosen)
            assert values.dtype == source.dtype
            np.testing.assert_array_equal(values, volume.array[(slice(None), *box.slices)][chosen])
            values[...] = 0
            np.testing.assert_array_equal(source.read(box), volume.array[(slice(None), *box.slices)])

    @pytest.mark.parametrize("channels", [[1], [-1], [0, 1]])
    def test_a_channel_that_the_volume_does_not_have_is_refused(self, channels: list[int]) -> None:
        volume = self.example()
        with self.store.open(self.place(volume)) as source, pytest.raises(ValueError, match="channel"):
            source.read(Box.whole(volume.grid.shape), channels)

    @_law
    @given(data=st.data())
    def test_chunks_fit_the_grid_and_lie_across_the_slowest_axis(self, data: st.DataObject) -> None:
        volume = data.draw(self.volumes())
        shape = volume.grid.shape
        with self.store.open(self.place(volume)) as source:
            chunk, slowest = source.chunk, source.slowest_axis
        assert all(1 <= part <= edge for part, edge in zip(chunk, shape, strict=True))
        across = [-(-edge // part) for edge, part in zip(shape, chunk, strict=True)]
        assert across[slowest] == max(across)

    @_law
    @given(data=st.data())
    def test_channel_names_are_those_stored(self, data: st.DataObject) -> None:
        volume = data.draw(self.volumes())
        names = tuple(f"stain {number}" for number in range(volume.channels))
        with self.store.open(self.place(replace(volume, channel_names=names))) as source:
            assert source.channel_names == (names if self.keeps_channel_names else ())
        with self.store.open(self.place(volume)) as source:
            assert source.channel_names == ()

    def test_content_is_recognised_and_nothing_else_is(self) -> None:
        assert self.store.recognises(self.place(self.example()))
        assert not self.store.recognises(self.new_reference())
        assert not self.store.recognises(self.place_foreign())

    def test_arrays_that_are_read_may_be_changed(self) -> None:
        volume = self.example()
        whole = Box.whole(volume.grid.shape)
        with self.store.open(self.place(volume)) as source:
            source.read(whole)[...] = 0
            np.testing.assert_array_equal(source.read(whole), volume.array)

    def test_several_threads_read_several_open_sources(self) -> None:
        some = [self.example(seed) for seed in range(3)]
        sources = [self.store.open(self.place(volume)) for volume in some]
        planes = [
            (source, volume, Box.whole(volume.grid.shape).with_range(2, z, z + 1))
            for source, volume in zip(sources, some, strict=True)
            for z in range(volume.grid.shape[2])
        ]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda plane: plane[0].read(plane[2]), planes * 5))
        for values, (_, volume, box) in zip(results, planes * 5, strict=True):
            np.testing.assert_array_equal(values, volume.array[(slice(None), *box.slices)])
        for source in sources:
            source.close()

    def test_the_hash_is_the_same_at_each_opening(self) -> None:
        reference = self.place(self.example())
        hashes = []
        for _ in range(2):
            with self.store.open(reference) as source:
                hashes += [source.sha256(), source.sha256()]
        assert len(set(hashes)) == 1
        assert len(bytes.fromhex(hashes[0])) == 32

    def test_the_hash_changes_with_one_voxel(self) -> None:
        volume = self.example()
        other = volume.array.copy()
        other[0, 1, 1, 1] ^= 1
        hashes = set()
        for stored in (volume, Volume(other, volume.grid)):
            with self.store.open(self.place(stored)) as source:
                hashes.add(source.sha256())
        assert len(hashes) == 2

    def test_a_missing_volume_is_an_input_error(self) -> None:
        with pytest.raises(InputError):
            self.store.open(self.new_reference())

    def test_a_source_closes_twice_and_by_itself(self) -> None:
        with self.store.open(self.place(self.example())) as source:
            source.close()
        source.close()

    @_law
    @given(data=st.data())
    def test_a_spacing_that_the_user_states_replaces_the_stored_one(self, data: st.DataObject) -> None:
        volume = data.draw(self.volumes())
        with self.store.open(self.place(volume), Reading(spacing=(0.5, 0.25, 2.0), unit="um")) as source:
            np.testing.assert_allclose(source.grid.spacing, (0.5, 0.25, 2.0), rtol=1e-9)
            assert source.grid.unit == "um"
            assert source.spacing_sources == ("given", "given", "given")
            turned, stored = (g.affine[:3, :3] / np.array(g.spacing) for g in (source.grid, volume.grid))
            np.testing.assert_allclose(turned, stored, atol=max(1e-9, self.largest_misfit))
            np.testing.assert_array_equal(source.read(Box.whole(volume.grid.shape)), volume.array)

    @_law
    @given(data=st.data())
    def test_the_user_takes_some_channels(self, data: st.DataObject) -> None:
        volume = data.draw(self.volumes())
        chosen = data.draw(st.lists(st.integers(0, volume.channels - 1), min_size=1, max_size=3))
        reading = Reading(channel=",".join(map(str, chosen)))
        with self.store.open(self.place(volume), reading) as source:
            assert source.channels == len(chosen)
            np.testing.assert_array_equal(source.read(Box.whole(volume.grid.shape)), volume.array[chosen])

    def test_a_channel_or_timepoint_of_the_user_that_is_not_there_is_refused(self) -> None:
        reference = self.place(self.example())
        for reading in (Reading(channel="5"), Reading(channel="none such"), Reading(timepoint=3)):
            with pytest.raises(UsageError):
                self.store.open(reference, reading)

    @pytest.mark.parametrize("reading", [Reading(level=7), Reading(series="none of this name")])
    def test_a_level_or_series_of_the_user_that_is_not_there_is_refused(self, reading: Reading) -> None:
        reference = self.place(self.example())
        with pytest.raises((InputError, UsageError)) as caught:
            self.store.open(reference, reading)
        assert {"level", "series"} & set(str(caught.value).replace("`", " ").replace(":", " ").split())

    def test_the_source_of_each_voxel_size_is_said(self) -> None:
        with self.store.open(self.place(self.example())) as source:
            assert len(source.spacing_sources) == 3
            assert all(source.spacing_sources)


class VolumeStoreContract(VolumeReadingContract):
    """Promises of a store that reads and writes; see `VolumeReadingContract`.

    ``peek`` and ``occupied`` must not go through the store under test.

    Attributes:
        keeps_labels: whether the format holds names and colours of labels.
        outlives_replacement: whether an open source keeps what it opened once another volume takes its place. A
            source of a folder of many files refuses to read then.
    """

    keeps_labels = False
    outlives_replacement = True

    def peek(self, reference: str) -> Volume | None:
        """What is stored under a reference, in its own dtype, read without the adapter; None if nothing is."""
        raise NotImplementedError

    def occupied(self) -> set[str]:
        """Every place, as ``places`` names them, where something is stored now."""
        raise NotImplementedError

    @_law
    @given(data=st.data())
    def test_commit_returns_the_hash_that_the_volume_then_has(self, data: st.DataObject) -> None:
        volume = data.draw(self.volumes())
        reference = self.new_reference()
        with self._sink(reference, volume) as sink:
            sink.write(Box.whole(volume.grid.shape), volume.array)
            committed = sink.commit()
        with self.store.open(reference) as source:
            assert source.sha256() == committed

    @_law
    @given(data=st.data())
    def test_boxes_written_in_any_order_make_the_volume(self, data: st.DataObject) -> None:
        volume = data.draw(self.volumes(sheared=True))
        reference = self.new_reference()
        parts = data.draw(st.permutations(data.draw(_partitions(volume.grid.shape))))
        with self._sink(reference, volume) as sink:
            for box in parts:
                sink.write(box, volume.array[(slice(None), *box.slices)])
            sink.commit()
        self.assert_same(self.peek(reference), volume)

    @_law
    @given(data=st.data())
    def test_a_new_volume_is_zero_but_where_it_was_written(self, data: st.DataObject) -> None:
        volume = data.draw(self.volumes())
        reference, box = self.new_reference(), data.draw(boxes(volume.grid.shape))
        expected = np.zeros_like(volume.array)
        expected[(slice(None), *box.slices)] = volume.array[(slice(None), *box.slices)]
        with self._sink(reference, volume) as sink:
            sink.write(box, volume.array[(slice(None), *box.slices)])
            np.testing.assert_array_equal(sink.read(Box.whole(volume.grid.shape)), expected)
            sink.commit()
        self.assert_same(self.peek(reference), Volume(expected, volume.grid))

    def test_the_dtype_asked_for_is_the_one_stored(self) -> None:
        volume = self.example()
        for dtype in self.dtypes:
            stored = Volume((volume.array % 100).astype(dtype), volume.grid)
            self.assert_same(self.peek(self._written(stored)), stored)

    def test_one_channel_is_written_without_its_axis(self) -> None:
        volume, reference = self.example(), self.new_reference()
        with self._sink(reference, volume) as sink:
            sink.write(Box.whole(volume.grid.shape), volume.array[0])
            sink.commit()
        self.assert_same(self.peek(reference), volume)

    def test_a_box_written_twice_holds_the_later_values(self) -> None:
        volume, reference = self.example(), self.new_reference()
        whole = Box.whole(volume.grid.shape)
        with self._sink(reference, volume) as sink:
            sink.write(whole, volume.array // 2)
            sink.write(whole, volume.array)
            sink.commit()
        self.assert_same(self.peek(reference), volume)

    def test_nothing_is_there_before_commit(self) -> None:
        volume, reference = self.example(), self.new_reference()
        with self._sink(reference, volume) as sink:
            sink.write(Box.whole(volume.grid.shape), volume.array)
            assert self.peek(reference) is None
        assert self.peek(reference) is None

    def test_a_run_that_fails_leaves_nothing(self) -> None:
        volume, reference = self.example(), self.new_reference()
        with suppress(ZeroDivisionError), self._sink(reference, volume) as sink:
            sink.write(Box.whole(volume.grid.shape), volume.array)
            raise ZeroDivisionError
        assert self.peek(reference) is None

    def test_without_commit_an_older_volume_stays(self) -> None:
        older, newer = self.example(1), self.example(2)
        reference = self.place(older)
        with self._sink(reference, newer) as sink:
            sink.write(Box.whole(newer.grid.shape), newer.array)
        self.assert_same(self.peek(reference), older)

    def test_commit_replaces_an_older_volume_whole(self) -> None:
        older, newer = self.example(1), self.example(2, (3, 2, 5))
        reference = self._written(newer, self.place(older))
        self.assert_same(self.peek(reference), newer)

    def test_an_open_source_outlives_its_replacement(self) -> None:
        older, newer = self.example(1), self.example(2)
        whole = Box.whole(older.grid.shape)
        reference = self.place(older)
        with self.store.open(reference) as source:
            self._written(newer, reference, like=source)
            if self.outlives_replacement:
                np.testing.assert_array_equal(source.read(whole), older.array)
                return
            with pytest.raises(InputError):
                source.read(whole)

    def test_a_sink_closes_twice_and_what_was_committed_stays(self) -> None:
        volume, reference = self.example(), self.new_reference()
        with self._sink(reference, volume) as sink:
            sink.write(Box.whole(volume.grid.shape), volume.array)
            sink.commit()
            sink.close()
        sink.close()
        self.assert_same(self.peek(reference), volume)

    @_law
    @given(data=st.data())
    def test_like_keeps_the_place_in_space_exactly(self, data: st.DataObject) -> None:
        volume = data.draw(self.volumes(sheared=True))
        dtype = data.draw(st.sampled_from([name for name in ("uint8", "uint16", "float32") if name in self.dtypes]))
        with self.store.open(self.place(volume)) as source:
            mask = Volume(np.ones(volume.grid.shape, dtype), source.grid)
            reference = self._written(mask, like=source)
        self.assert_same(self.peek(reference), mask)

    @_law
    @given(data=st.data())
    def test_like_takes_a_source_of_another_store(self, data: st.DataObject) -> None:
        volume = data.draw(self.volumes(sheared=True))
        self.assert_same(self.peek(self._written(volume, like=_Foreign(volume))), volume)

    def test_like_on_another_grid_is_a_programming_error(self) -> None:
        volume = self.example()
        other = Grid(volume.grid.shape, volume.grid.affine * 2, volume.grid.unit)
        with pytest.raises(ValueError, match="grid"):
            self.store.create(self.new_reference(), other, volume.array.dtype, like=_Foreign(volume))

    def test_names_and_colours_are_kept_where_the_format_holds_them(self) -> None:
        table = LabelTable((Label(1, "vessel", "#112233"), Label(7, "soma, left", "#ff0000")))
        volume, names = self.example(), ("labels",)
        found = self.peek(self._written(volume, channel_names=names, labels=table))
        self.assert_same(found, volume)
        assert found is not None
        assert found.labels == (table if self.keeps_labels else None)
        assert found.channel_names == (names if self.keeps_channel_names else ())

    def test_too_few_channel_names_are_a_programming_error(self) -> None:
        grid = self.example().grid
        with pytest.raises(ValueError, match="channel_names"):
            self.store.create(self.new_reference(), grid, np.dtype(np.uint8), channels=2, channel_names=["one"])

    def test_a_volume_occupies_its_places_and_no_others(self) -> None:
        before, reference = self.occupied(), self.new_reference()
        places = set(self.store.places(reference))
        assert not before & places
        self._written(self.example(), reference)
        assert self.occupied() - before
        assert self.occupied() - before <= places
        assert not places & set(self.store.places(self.new_reference()))

    def test_a_new_name_has_a_writable_ending_if_the_store_has_endings(self) -> None:
        names = self.store.names
        assert not names.formats or names.ending(self.new_reference()) in names.writable

    def test_what_was_written_opens_again(self) -> None:
        volume = self.example()
        with self.store.open(self._written(volume)) as source:
            self.assert_same_grid(source.grid, volume.grid)
            np.testing.assert_array_equal(source.read(Box.whole(volume.grid.shape)), volume.array)

    def assert_same(self, found: Volume | None, expected: Volume) -> None:
        """Compare volumes, the grids as exactly as the format holds them."""
        assert found is not None
        self.assert_same_grid(found.grid, expected.grid)
        assert found.array.dtype == expected.array.dtype
        np.testing.assert_array_equal(found.array, expected.array)

    def _sink(self, reference: str, volume: Volume, **options: Any) -> VolumeSink:
        return self.store.create(reference, volume.grid, volume.array.dtype, channels=volume.channels, **options)

    def _written(self, volume: Volume, reference: str = "", **options: Any) -> str:
        reference = reference or self.new_reference()
        with self._sink(reference, volume, **options) as sink:
            sink.write(Box.whole(volume.grid.shape), volume.array)
            sink.commit()
        return reference


class _Foreign(OpenVolume):
    """A source that is of no store."""

    slowest_axis, notes = 1, ()
    spacing_sources = ("affine", "affine", "affine")

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self.grid, self.channels, self.dtype = volume.grid, volume.channels, volume.array.dtype
        self.channel_names = volume.channel_names
        self.chunk: Shape3 = volume.grid.shape

    def read(self, box: Box, channels: Sequence[int] | None = None) -> NDArray[Any]:
        values = self._volume.array[(slice(None), *box.slices)]
        return values[list(range(self.channels) if channels is None else channels)]

    def sha256(self) -> str:
        return "0" * 64

    def close(self) -> None:
        pass


@st.composite
def _partitions(draw: st.DrawFn, shape: Shape3) -> list[Box]:
    """Boxes that hold every voxel of ``shape`` once."""
    ranges = []
    for edge in shape:
        cuts = draw(st.sets(st.integers(1, edge - 1), max_size=2)) if edge > 1 else set()
        ranges.append(list(pairwise([0, *sorted(cuts), edge])))
    return [Box((x[0], y[0], z[0]), (x[1], y[1], z[1])) for x, y, z in product(*ranges)]
