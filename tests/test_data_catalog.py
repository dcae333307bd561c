from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner
from command_line import ROOT, invoke
from download_server import (
    CONTENT,
    Item,
    Servers,
    WriteCatalogue,
    product,
    sha256,
    zipped,
)
from hypothesis import given
from hypothesis import strategies as st

from deepbedmap_tf.cli import main
from deepbedmap_tf.config import read_yaml
from deepbedmap_tf.data.catalog import Catalogue, load_catalogue, product_path, resolve
from deepbedmap_tf.data.fetching import fetch
from deepbedmap_tf.data.product_states import product_states
from deepbedmap_tf.errors import ConfigError, DataError

pytest_plugins = ["download_fixtures"]


def test_the_shipped_catalogue_is_whole() -> None:
    products = {each.key: each for each in load_catalogue().products}
    assert len(products) == 14
    for each in products.values():
        assert each.format and (each.files or each.doi_dataset) and (each.doi_dataset or each.doi_literature)
        # What is said of a product names where it was read; the rest is left open.
        assert (each.citation is None) == (each.citation_source is None), each.key
        assert (each.licence is None) == (each.licence_source is None), each.key
        assert (each.owner is None) == (each.owner_source is None), each.key
        for file in each.files:
            reachable = file.url is None or file.url.startswith(("http://", "https://")) or each.superseded_by
            assert reachable, file.name
            assert file.url is not None or each.owner, f"nobody to ask for {file.name}"
    cloud = products["Mouginot2019MEASURES_cloud"]
    assert products["Mouginot2019MEASURES"].files[0].sha256 == cloud.files[0].sha256
    assert {each.key for each in products.values() if each.login} == {cloud.key, "Morlighem2022BedMachineV3"}


def test_the_shipped_catalogue_says_what_is_on_public_record(shared: Callable[[str], Path]) -> None:
    record = yaml.safe_load(shared("CATALOGUE.yml").read_text(encoding="utf-8"))
    ours = {each.key: each for each in load_catalogue().products}
    for each in record:
        files = {file.name: file for file in ours[each["key"]].files}
        assert ours[each["key"]].doi_dataset == each["doi_dataset"]
        for file in each["files"]:
            mine = files[file["name"]]
            assert (mine.url, mine.sha256, mine.md5) == (file["url"], file.get("sha256"), file.get("md5"))


@pytest.mark.parametrize("name", ["../a", "/a", "a/b", "..", ".a", "a\\b", "c:a", "", "a\nb"])
@pytest.mark.parametrize("where", ["key", "name", "archive"])
def test_no_name_leads_out_of_the_data_folder(catalogue: WriteCatalogue, name: str, where: str) -> None:
    file = {"name": "a", "url": "https://example.org/a"}
    catalogue(product(name, file) if where == "key" else product("Made", file | {where: name}))
    with pytest.raises(ConfigError, match="pattern"):
        load_catalogue()


def test_unknown_products_name_similar_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean Fretwell2013BEDMAP2"):
        product_path("fretwell2013bedmap")
    with pytest.raises(ConfigError, match=r"has no file 'b.txt'; it has bed_WGS84_grid.txt"):
        product_path("King2016Rutford", "b.txt")
    with pytest.raises(ConfigError, match="has several files; name one"):
        resolve("catalogue:Noh2018REMA")


@given(st.lists(st.sampled_from(["..", ".", "a", "x.csv", "", "~", "C:"]), max_size=5))
def test_no_reference_leads_out_of_the_product(parts: list[str]) -> None:
    key = "FremandFrimodig2023BedmapPoints"
    try:
        path = product_path(key, "/".join(parts))
    except ConfigError:
        return
    assert Path(os.path.normpath(path)).is_relative_to(load_catalogue().product(key).folder)


def test_archives_are_unpacked(servers: Servers, catalogue: WriteCatalogue, folder: Path) -> None:
    packed = zipped(**{"sub/b.tif": CONTENT, "sub/b.tfw": b"world", "sub/readme.txt": b"more"})
    for name in ("picks.zip", "tif.zip"):
        servers.items[name] = Item(packed)
    inner = {"name": "b.tif", "url": servers.url("tif.zip"), "archive": "tif.zip", "sha256": sha256(CONTENT)}
    whole = {"name": "picks.zip", "url": servers.url("picks.zip"), "unpack": True, "sha256": sha256(packed)}
    catalogue(product("Made", inner, whole))
    with pytest.raises(DataError, match=r"run `deepbedmap fetch Made`, or place picks.zip at"):
        resolve("catalogue:Made/picks/sub/readme.txt")
    assert [each.path.name for each in fetch(["Made"])] == ["b.tif", "picks"]
    assert sorted(each.name for each in folder.iterdir()) == ["b.tfw", "b.tif", "picks", "picks.zip"]
    assert (folder / "b.tif").read_bytes() == CONTENT
    assert resolve("catalogue:Made/picks/sub/readme.txt").read_bytes() == b"more"
    with pytest.raises(DataError, match="the archive holds no such file"):
        resolve("catalogue:Made/picks/none.txt")
    (folder / "picks.zip").unlink()
    assert not any(each.downloaded for each in fetch(["Made"]))
    (folder / "b.tif").unlink()
    catalogue(product("Made", inner | {"sha256": "0" * 64}))
    with pytest.raises(DataError, match="expected sha256:0000"):
        list(fetch(["Made"]))
    assert not (folder / "b.tif").exists()


def test_a_shapefile_is_a_set(servers: Servers, catalogue: WriteCatalogue, folder: Path) -> None:
    files = []
    for ending in ("shp", "shx", "dbf"):
        servers.items[f"line.{ending}"] = Item(ending.encode())
        files.append(
            {"name": f"line.{ending}", "url": servers.url(f"line.{ending}"), "sha256": sha256(ending.encode())}
        )
    catalogue(product("Made", *files))
    assert len(list(fetch(["Made"]))) == 3
    assert resolve("catalogue:Made") == folder / "line.shp"
    (folder / "line.dbf").unlink()
    assert [each.state for each in product_states()] == ["partial"]
    with pytest.raises(DataError, match=r"run `deepbedmap fetch Made`, or place line.dbf at"):
        resolve("catalogue:Made")


# What can't be downloaded


def test_files_on_request_say_whom_to_ask(servers: Servers, catalogue: WriteCatalogue, folder: Path) -> None:
    files = [{"name": f"{n}.txt", "sha256": sha256(str(n).encode())} for n in range(3)]
    catalogue(product("Made", *files, owner="Jane Doe, author of the publication"))
    assert [each.state for each in product_states()] == ["on request"]
    with pytest.raises(
        DataError, match=r"ask Jane Doe.*https://doi.org/10.0/Made.*place 0.txt at .*likewise 1.txt, 2.txt"
    ):
        list(fetch(["Made"]))
    with pytest.raises(DataError, match=r"ask Jane Doe.* place 1.txt at"):
        resolve("catalogue:Made/1.txt")
    catalogue(product("Made", *files, owner="Jane Doe", copies="https://example.org/copy"))
    with pytest.raises(DataError, match=r"ask Jane Doe .*, or look for a copy on https://example.org/copy, and place"):
        resolve("catalogue:Made/1.txt")
    folder.mkdir(parents=True)
    for n in range(3):
        (folder / f"{n}.txt").write_bytes(str(n).encode())
    assert [each.downloaded for each in fetch(["Made"])] == [False] * 3
    assert [each.state for each in product_states()] == ["present"]


def test_the_geoid_of_bedmap2_is_placed_by_hand(servers: Servers, tmp_path: Path) -> None:
    reference = "catalogue:Fretwell2013BEDMAP2/gl04c_geiod_to_wgs84.tif"
    with pytest.raises(DataError, match=r"choose files on https://doi.org/10.7488/ds/1916 and place them in"):
        resolve(reference)
    path = tmp_path / "data" / "Fretwell2013BEDMAP2" / "gl04c_geiod_to_wgs84.tif"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert resolve(reference) == path


def test_files_chosen_by_hand_are_used(servers: Servers, catalogue: WriteCatalogue, folder: Path) -> None:
    catalogue(product("Made", further_files=True))
    with pytest.raises(DataError, match=f"choose files on https://doi.org/10.0/Made and place them in {folder}"):
        list(fetch(["Made"]))
    folder.mkdir(parents=True)
    (folder / "survey.csv").write_text("x\n", encoding="utf-8")
    assert [each.path for each in fetch(["Made"])] == [folder / "survey.csv"]
    assert resolve("catalogue:Made/survey.csv") == folder / "survey.csv"


def test_one_file_of_a_product(servers: Servers, catalogue: WriteCatalogue, folder: Path) -> None:
    for name in ("a.csv", "b.csv"):
        servers.items[name] = Item(name.encode())
    files = [{"name": name, "url": servers.url(name)} for name in ("a.csv", "b.csv")]
    catalogue(product("Made", *files, further_files=True))
    assert [each.path for each in fetch(["Made/b.csv"])] == [folder / "b.csv"]
    (folder / "c.csv").write_text("placed\n", encoding="utf-8")
    (state,) = product_states(["Made"])
    assert state.state == "partial" and state.files == {"a.csv": "missing", "b.csv": "present", "c.csv": "present"}
    with pytest.raises(ConfigError, match=r"has no file 'd.csv'; `deepbedmap fetch --list Made` shows its files"):
        list(fetch(["Made/d.csv"]))
    listed = invoke(main, "fetch", "--list", "Made").output
    assert "missing: a.csv" in listed and "present: c.csv" in listed
    assert [(each.path.name, each.downloaded) for each in fetch(["Made"])] == [
        ("c.csv", False),
        ("a.csv", True),
        ("b.csv", False),
    ]


def test_a_superseded_product_leads_to_its_successor(servers: Servers, catalogue: WriteCatalogue, folder: Path) -> None:
    servers.items["a.nc"] = Item(CONTENT)
    file = {"name": "a.nc", "sha256": sha256(CONTENT)}
    old = product("Old", file | {"url": "ftp://ftp.example.org/a.nc"}, superseded_by="Made")
    catalogue(old, product("Made", file | {"url": servers.url("a.nc")}))
    assert [each.path for each in fetch(["Old"])] == [folder / "a.nc"] == [resolve("catalogue:Old/a.nc")]
    catalogue(product("Old", file | {"url": "ftp://ftp.example.org/a.nc"}))
    with pytest.raises(DataError, match=r"not served over http; download it by other means and place a.nc at"):
        list(fetch(["Old"]))


# The command


def test_the_command_fetches_and_lists(one: SimpleNamespace) -> None:
    listed = invoke(main, "fetch", "--list")
    assert listed.exit_code == 0 and "Made" in listed.output and "missing" in listed.output
    assert "licence: not on record; data: https://doi.org/10.0/Made" in listed.output
    fetched = invoke(main, "fetch", "Made")
    assert fetched.exit_code == 0, fetched.output
    assert f"{one.path}: downloaded, sha256:{sha256(CONTENT)}" in fetched.output
    listed = invoke(main, "fetch", "Made", "--verify")
    assert "present" in listed.output and "307 kB" in listed.output
    wrong = invoke(main, "fetch", "Mode")
    assert (
        wrong.exit_code == 2
        and wrong.output == "error: there is no product 'Mode' in the catalogue; did you mean Made?\n"
    )


def test_what_is_not_on_record_is_said_and_not_guessed(servers: Servers, catalogue: WriteCatalogue) -> None:
    file = {"name": "a.nc", "url": servers.url("a.nc")}
    literature = "https://doi.org/10.0/paper"
    known = product("Known", file, licence="CC BY 4.0", licence_source="its page", doi_literature=literature)
    catalogue(known, product("Unknown", file, citation=None), product("Asked", {"name": "b"}, citation=None))
    lines = [line.strip() for line in invoke(main, "fetch", "--list").stdout.splitlines()]
    of = {line.split()[0]: lines[i : i + 3] for i, line in enumerate(lines) if "not on record  " in line}
    assert "licence: CC BY 4.0 (says its page); data: https://doi.org/10.0/Known" in of["Known"]
    assert f"cite: Known et al.; literature: {literature}" in of["Known"]
    assert "licence: not on record; data: https://doi.org/10.0/Unknown" in of["Unknown"]
    assert "cite: not on record; literature: https://doi.org/10.0/Unknown" in of["Unknown"]
    with pytest.raises(DataError, match=r"ask the authors \(https://doi.org/10.0/Asked\) and place b at"):
        list(fetch(["Asked"]))


def test_a_pattern_is_of_files_that_are_there(servers: Servers, catalogue: WriteCatalogue, folder: Path) -> None:
    files = [{"name": f"{name}.csv", "url": servers.url(f"{name}.csv")} for name in "ab"]
    catalogue(product("Made", *files))
    with pytest.raises(DataError, match=r"no file of catalogue:Made/\*\.csv is there: run `deepbedmap fetch Made`"):
        resolve("catalogue:Made/*.csv")
    with pytest.raises(ConfigError, match=r"product Made has no file that matches '\*\.txt'; it has a\.csv, b\.csv"):
        resolve("catalogue:Made/*.txt")
    folder.mkdir(parents=True)
    (folder / "b.csv").write_bytes(b"b")
    assert resolve("catalogue:Made/*.csv") == folder / "*.csv"
    for pattern in ("../*.csv", "sub/*.csv", ".*"):
        with pytest.raises(ConfigError, match="expected a pattern of file names alone"):
            resolve(f"catalogue:Made/{pattern}")
    with pytest.raises(ConfigError, match=r"name one: catalogue:Made/FILE, or picks by a pattern: catalogue:Made/\*"):
        resolve("catalogue:Made")


def test_errors_of_the_command_are_one_line(one: SimpleNamespace) -> None:
    one.offer(url="http://127.0.0.1:9/a.nc")
    failed = CliRunner().invoke(main, ["fetch", "Made"])
    assert failed.exit_code == 2 and failed.output.startswith("error: no connection") and failed.output.count("\n") == 1


def test_the_registry_ships_with_the_package() -> None:
    path = ROOT / "deepbedmap_tf" / "data" / "catalogue.yml"
    Catalogue.model_validate(read_yaml(path))
