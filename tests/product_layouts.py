"""Small files in the exact layouts of the products that the package reads; all numbers in them are made up."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from data_files import ramp

from deepbedmap_tf.grid import Grid

MAPPING = {
    "grid_mapping_name": "polar_stereographic",
    "latitude_of_projection_origin": -90.0,
    "standard_parallel": -71.0,
    "straight_vertical_longitude_from_pole": 0.0,
    "false_easting": 0.0,
    "false_northing": 0.0,
}
ESRI_3031 = (
    'PROJCS["WGS_84_Antarctic_Polar_Stereographic",GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",'
    'SPHEROID["WGS_1984",6378137,298.257223563]],PRIMEM["Greenwich",0],UNIT["Degree",0.017453292519943295]],'
    'PROJECTION["Stereographic_South_Pole"],PARAMETER["standard_parallel_1",-71],PARAMETER["central_meridian",0],'
    'PARAMETER["false_easting",0],PARAMETER["false_northing",0],UNIT["Meter",1]]'
)


def geotiff(path: Path, grid: Grid, values: np.ndarray, **profile: Any) -> Path:
    options = {"driver": "GTiff", "crs": "EPSG:3031", "transform": grid.transform, "dtype": values.dtype, **profile}
    with rasterio.open(path, "w", height=grid.shape[0], width=grid.shape[1], count=1, **options) as out:
        out.write(values, 1)
    return path


def _on_axes(grid: Grid, upward: bool, step: float = 1.0) -> dict[str, Any]:
    y = grid.y[::-1] if upward else grid.y
    return {"y": ("y", y / step), "x": ("x", grid.x / step)}


def bedmachine(path: Path, grid: Grid, firn: float = 15.0, geoid: int = -45) -> Path:
    """BedMachine Antarctica v2 and v3: whole numbers as axes, rows southwards, a mapping by CF's names."""
    bed = ramp(grid, -500)
    surface = ramp(grid, 1200)
    mask = np.full(grid.shape, 2, np.int8)
    mask[:, -2:] = 3
    layers: dict[str, Any] = {
        "mask": (mask, {"long_name": "mask", "flag_values": np.arange(5, dtype=np.int8)}),
        "firn": (np.full(grid.shape, firn, np.float32), {"units": "meters", "long_name": "firn air content"}),
        "surface": (surface, {"units": "meters", "standard_name": "surface_altitude"}),
        "thickness": (surface - bed, {"units": "meters", "standard_name": "land_ice_thickness"}),
        "bed": (bed, {"units": "meters", "standard_name": "bedrock_altitude"}),
        "errbed": (np.full(grid.shape, 30, np.float32), {"units": "meters"}),
        "source": (np.ones(grid.shape, np.int8), {}),
        "dataid": (np.ones(grid.shape, np.int8), {}),
        "geoid": (
            np.full(grid.shape, geoid, np.int16),
            {"units": "meters", "geoid": "eigen-6c4 (Forste et al 2014)"},
        ),
    }
    arrays = {
        name: (("y", "x"), values, {**attrs, "grid_mapping": "mapping"}) for name, (values, attrs) in layers.items()
    }
    arrays["mapping"] = ((), np.bytes_(b""), MAPPING)
    axes = {axis: (axis, np.asarray(getattr(grid, axis), np.int32), {"units": "meter"}) for axis in ("y", "x")}
    dataset = xr.Dataset(arrays, axes, {"Conventions": "CF-1.7", "no_data": -9999.0})
    dataset.to_netcdf(
        path, encoding={name: {"_FillValue": -9999.0} for name in ("firn", "surface", "thickness", "bed")}
    )
    return path


def bedmap3(path: Path, grid: Grid) -> Path:
    """Bedmap3: rows northwards here, heights with a tag of -9999, flags with a tag of their own."""
    names = ("surface_topography", "bed_topography", "bed_uncertainty", "ice_thickness", "thickness_uncertainty")
    arrays: dict[str, Any] = {
        name: (("y", "x"), ramp(grid, 10.0 * i)[::-1], {"units": "m", "grid_mapping": "mapping"})
        for i, name in enumerate(names)
    }
    arrays["thickness_survey_count"] = (("y", "x"), np.ones(grid.shape, np.int16), {"grid_mapping": "mapping"})
    arrays["mask"] = (("y", "x"), np.ones(grid.shape, np.int8), {"grid_mapping": "mapping", "units": "1"})
    from pyproj import CRS

    arrays["mapping"] = ((), np.int8(0), {**MAPPING, "crs_wkt": CRS.from_epsg(3031).to_wkt()})
    encoding = {name: {"_FillValue": -9999.0} for name in names}
    xr.Dataset(arrays, _on_axes(grid, True)).to_netcdf(path, encoding=encoding)
    return path


def measures_phase_map(path: Path, grid: Grid) -> Path:
    """NSIDC-0754: VX, VY and their errors on 450 m, latitude and longitude beside them, units m/year."""
    velocity = {
        name: (("y", "x"), ramp(grid, offset), {"units": "m/year", "grid_mapping": "coord_system"})
        for name, offset in (("VX", 10.0), ("VY", -10.0), ("STDX", 1.0), ("STDY", 1.0), ("ERRX", 2.0), ("ERRY", 2.0))
    }
    further = {name: (("y", "x"), np.zeros(grid.shape), {"units": "degrees"}) for name in ("lat", "lon")}
    counts = {"CNT": (("y", "x"), np.ones(grid.shape, np.int32)), "SOURCE": (("y", "x"), np.ones(grid.shape, np.int8))}
    system = {"coord_system": ((), np.bytes_(b""), {**MAPPING, "ellipsoid": "WGS84", "semi_major_axis": 6378137.0})}
    xr.Dataset({**velocity, **further, **counts, **system}, _on_axes(grid, False)).to_netcdf(path)
    return path


def nsidc_0484(path: Path, grid: Grid, missing: float) -> Path:
    """NSIDC-0484 v2: as the phase map, with axes that say their standard names; `missing` untagged in four cells."""
    measures_phase_map(path, grid)
    dataset = xr.load_dataset(path)
    for axis in ("x", "y"):
        dataset[axis].attrs = {"units": "m", "standard_name": f"projection_{axis}_coordinate"}
    for name in ("VX", "VY"):
        dataset[name][2:4, 5:7] = missing
    dataset.attrs["Conventions"] = "CF-1.6"
    dataset.to_netcdf(path, encoding={name: {"_FillValue": None, "dtype": "float32"} for name in ("VX", "VY")})
    return path


def its_live(folder: Path, grid: Grid, crs: str = "EPSG:3031") -> tuple[Path, Path]:
    """ITS_LIVE mosaic: a GeoTIFF a component, float32, m/y, -32767 where there is none, tags of the NetCDF it was."""
    paths = []
    for name, offset in (("vx", 10.0), ("vy", -10.0)):
        values = ramp(grid, offset)
        values[2:4, 5:7] = -32767
        path = geotiff(
            folder / f"ANT_G0120_0000_{name}.tif", grid, values, nodata=-32767.0, crs=crs, compress="deflate"
        )
        with rasterio.open(path, "r+") as dataset:
            dataset.units = ("m/y",)
            tags = {f"{name}#units": "m/y", f"{name}#missing_value": "-32767", "AREA_OR_POINT": "Area"}
            dataset.update_tags(**tags, **{"NC_GLOBAL#title": "autoRIFT surface velocities"})
        paths.append(path)
    return paths[0], paths[1]


def mar_native(path: Path, rows: int = 9, columns: int = 11) -> tuple[Path, np.ndarray, np.ndarray]:
    """MAR on its own cells: an oblique stereographic map, axes in km, no mapping but 2-D longitude and latitude.

    Returns the x and y of its nodes in EPSG:3031 too; the field is 300 + x / 10 km.
    """
    from pyproj import Transformer

    own = "+proj=stere +lat_0=-79 +lon_0=-110 +k=1 +ellps=sphere +units=km"
    east, north = np.meshgrid(np.arange(columns) * 35.0 - 150, np.arange(rows) * 35.0 - 100)
    longitude, latitude = Transformer.from_crs(own, "EPSG:4326", always_xy=True).transform(east, north)
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True).transform(longitude, latitude)
    smb = (300 + 1e-4 * x)[np.newaxis, np.newaxis] + np.array([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    dims = (f"Y20_{rows}", f"X10_{columns}")
    arrays = {
        "SMB": (
            ("TIME", "SECTOR", *dims),
            smb.astype(np.float32),
            {"units": "mmWE/yr", "long_name": "Surface Mass Balance"},
        ),
        "LON": (dims, longitude, {"units": "degrees"}),
        "LAT": (dims, latitude, {"units": "degrees"}),
        "MSK": (dims, np.full(x.shape, 100.0), {"units": "%"}),
    }
    axes = {dims[0]: (dims[0], north[:, 0], {"units": "km"}), dims[1]: (dims[1], east[0], {"units": "km"})}
    xr.Dataset(arrays, {**axes, "TIME": ("TIME", [0.0, 12.0, 24.0], {"units": "HOURS since 1979-01-01"})}).to_netcdf(
        path
    )
    return path, x, y


def racmo(path: Path, crs: str = "EPSG:3031") -> tuple[Path, np.ndarray, np.ndarray]:
    """RACMO's output: months on a rotated pole, 2-D longitude and latitude; returns x and y of the nodes too."""
    from pyproj import CRS, Transformer

    pole = {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": 0.0,
        "grid_north_pole_longitude": -170.0,
    }
    rlon, rlat = np.meshgrid(np.linspace(-18, -8, 9), np.linspace(-9, 3, 8))
    to_map = Transformer.from_crs(CRS.from_cf(pole), crs, always_xy=True)
    x, y = to_map.transform(rlon, rlat)
    longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    smb = (300 + 1e-4 * x)[np.newaxis, np.newaxis] + np.arange(-1, 2).reshape(3, 1, 1, 1)
    smb[1, 0, 0, 0] = 1e20
    dataset = xr.Dataset(
        {
            "smb": (
                ("time", "height", "rlat", "rlon"),
                smb.astype(np.float32),
                {"units": "kg m-2 yr-1", "grid_mapping": "rotated_pole"},
            ),
            "rotated_pole": ((), np.bytes_(b""), pole),
            "lon": (("rlat", "rlon"), longitude, {"units": "degrees_east"}),
            "lat": (("rlat", "rlon"), latitude, {"units": "degrees_north"}),
        },
        {
            "rlon": ("rlon", rlon[0], {"units": "degrees", "standard_name": "grid_longitude"}),
            "rlat": ("rlat", rlat[:, 0], {"units": "degrees", "standard_name": "grid_latitude"}),
            "height": ("height", [0.0]),
            "time": ("time", [0.0, 31.0, 59.0]),
        },
    )
    dataset.to_netcdf(path)
    return path, x, y


def mar(path: Path, grid: Grid) -> Path:
    """MAR's output: axes in kilometres, a single time step."""
    arrays = {
        "SMB": (("time", "y", "x"), ramp(grid, 300)[np.newaxis, ::-1], {"units": "mmWE/yr"}),
        "LON": (("y", "x"), np.zeros(grid.shape), {"units": "degrees"}),
        "LAT": (("y", "x"), np.zeros(grid.shape), {"units": "degrees"}),
    }
    axes = {name: (*axis, {"units": "km"}) for name, axis in _on_axes(grid, True, 1000.0).items()}
    xr.Dataset(arrays, axes, {"crs": "EPSG:3031"}).to_netcdf(path)
    return path


def gmt_grid(path: Path, grid: Grid, registration: str, *, offset: int | None = None) -> Path:
    """A grid as GMT writes it: rows northwards; `offset` overrides node_offset to contradict the axes."""
    half = grid.resolution / 2 if registration == "pixel" else 0.0
    axes = {}
    for name, centres in (("x", grid.x), ("y", grid.y[::-1])):
        extent = np.array([centres[0] - half, centres[-1] + half])
        axes[name] = (name, centres, {"actual_range": extent, "long_name": name, "axis": name.upper()})
    node_offset = offset if offset is not None else int(registration == "pixel")
    attributes = {"Conventions": "CF-1.7", "node_offset": np.int32(node_offset), "GMT_version": "6.3.0 [64-bit]"}
    xr.Dataset({"z": (("y", "x"), ramp(grid)[::-1], {"long_name": "z"})}, axes, attributes).to_netcdf(path)
    return path


def bedmap_points(path: Path, rows: list[str], columns: str | None = None) -> Path:
    """Bedmap1-3 standardised points: 18 lines of ``#key: value``, then columns with their units."""
    keys = {
        "project": "MADE-UP", "time_coverage_start": "2011", "time_coverage_end": "2012", "creator_name": "nobody",
        "institution": "none", "acknowledgement": "none", "source": "airborne radar depth sounding", "license": "none",
        "format": "Bedmap standardised", "product": "none", "platform": "none", "instrument": "none",
        "centre_frequency (unit:MHz)": "150", "electromagnetic_wave_speed_in_ice (unit:m/microseconds)": "168.5",
        "firn_correction (unit:m)": "10", "references": "none: at all", "comments": "", "metadata_link": "none",
    }  # fmt: skip
    assert len(keys) == 18
    header = columns or (
        "trajectory_id,trace_number,longitude (degree_east),latitude (degree_north),date,time_UTC,"
        "surface_altitude (m),land_ice_thickness (m),bedrock_altitude (m),two_way_travel_time (m),"
        "aircraft_altitude (m),along_track_distance (m)"
    )
    lines = [*(f"#{key}: {value}" for key, value in keys.items()), header, *rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def rutford(path: Path, rows: list[tuple[float, ...]], named: bool = True) -> Path:
    """20 lines of text, some with tabs and numbers, a line that names the columns or none, then numbers by tabs."""
    text = ["Bed elevation of nowhere", "Projection:\tPolar stereographic", "1 2 3", ""] + ["* * *"] * 16
    assert len(text) == 20
    text += ["x\ty\tz"] if named else []
    path.write_text("\n".join([*text, *("\t".join(map(str, row)) for row in rows)]) + "\n", "latin-1")
    return path


WISE = (
    "FlightID Line_name lon lat x y Height_WGS1984 Date Time Segy_name traceNum PriNum surfPickLoc bedPickLoc bed "
    "Bedrock_and_BEDMAP2 Mask picked_bedElev surfElev tIce"
)


def wise_isodyn(path: Path, flights: dict[str, list[str]], named: bool) -> Path:
    """One text file a flight in a zip: 11 lines of text, the last of which may name the columns."""
    with zipfile.ZipFile(path, "w") as archive:
        for flight, rows in flights.items():
            text = [f"Flight {flight}, made up"] + ["-"] * 9 + ["   ".join(WISE.split()) if named else "end of header"]
            assert len(text) == 11
            archive.writestr(f"WISE_ISODYN/{flight}.txt", "\n".join([*text, *rows]) + "\n")
        archive.writestr("WISE_ISODYN/readme.pdf", b"%PDF")
    return path


PINE_ISLAND = {
    "2007t1": "x y z_surf time h h_fc z z_fc",
    "2010tr": "x y z_surf time h h_fc z_bed z_bed_fc z-surf",
    "istar08": "x y z_surf time h h_fc z_bed z_bed_fc",
}


def pine_island(path: Path, columns: str, rows: list[list[float]]) -> Path:
    lines = ["\t".join(columns.split()), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def shapefile(path: Path, polygons: list[list[np.ndarray]], kind: int = 5, prj: str | None = ESRI_3031) -> Path:
    """A polygon shapefile; rings are closed here."""
    records = b""
    for number, rings in enumerate(polygons, start=1):
        closed = [np.vstack([ring, ring[:1]]) for ring in rings]
        points = np.vstack(closed)
        starts = np.cumsum([0, *(len(ring) for ring in closed[:-1])])
        content = struct.pack("<i4d2i", kind, *points.min(axis=0), *points.max(axis=0), len(closed), len(points))
        content += starts.astype("<i4").tobytes() + points.astype("<f8").tobytes()
        records += struct.pack(">2i", number, len(content) // 2) + content
    corners = np.vstack([ring for rings in polygons for ring in rings])
    box = (*corners.min(axis=0), *corners.max(axis=0), 0.0, 0.0, 0.0, 0.0)
    header = struct.pack(">7i", 9994, 0, 0, 0, 0, 0, (100 + len(records)) // 2) + struct.pack("<2i8d", 1000, kind, *box)
    path.write_bytes(header + records)
    if prj is not None:
        path.with_suffix(".prj").write_text(prj, encoding="utf-8")
    return path
