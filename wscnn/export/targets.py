"""All formats that results are exported to; light to import, since the command line lists them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A format that results are exported to.

    Attributes
    ----------
    module
        Module below `wscnn.export` whose function ``write(screen, path)`` writes the export.
    summary
        What is written, for the command line.
    suffix
        Ending of the file that is written; empty where a folder is written.
    """

    module: str
    summary: str
    suffix: str = ""


#: All formats, by the name that the command line knows them by.
TARGETS = {
    "xlsx": Target("spreadsheet", "a workbook: hits, meanings of columns, wells, plates", ".xlsx"),
    "csv": Target("csv_tables", "the same tables as CSV files"),
    "anndata": Target("anndata", "AnnData (Zarr): one observation per detected cell, or per well"),
    "cytotable": Target("cytotable", "Parquet profiles with Metadata_ columns, for pycytominer"),
    "fractal": Target("fractal", "OME-Zarr plates with feature and condition tables, for ngio and Fractal"),
    "omero": Target("omero", "an annotation CSV for OMERO.tables and MIHCSME metadata"),
    "rocrate": Target("rocrate", "an RO-Crate of the tables, report, model and config"),
    "crops": Target("crops", "images of the highest-scoring cells as TIFF and PNG, with a table"),
}
