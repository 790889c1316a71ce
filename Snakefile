# Where `snakemake` looks first. Other workflows include workflow/Snakefile as a module.
include: "workflow/Snakefile"
