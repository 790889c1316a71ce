# Textbook features of a plate's nuclei, one row per nucleus.
rule measure:
    input:
        manifest=f"{RESULTS}/plates/{{plate}}.json",
        qc=f"{RESULTS}/qc/{{plate}}.parquet",
    output:
        f"{RESULTS}/cells/{{plate}}.parquet",
    log:
        f"{RESULTS}/logs/measure/{{plate}}.log",
    benchmark:
        f"{RESULTS}/logs/benchmarks/measure-{{plate}}.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 8
    params:
        store=lambda wildcards: f"{RESULTS}/plates/{wildcards.plate}.zarr",
        nuclei=(
            ["--nuclei", config["acquisition"]["nuclei"]]
            if config["acquisition"]["nuclei"]
            else []
        ),
        settings=settings("dask"),
    shell:
        "wscnn measure --store {params.store:q} --quality {input.qc:q} --output {output:q} {params.nuclei:q} {params.settings:q}"
        " > {log:q} 2>&1"


# What simpler methods find in the same wells, by the same folds and hit calls.
rule baseline:
    input:
        cells=expand(f"{RESULTS}/cells/{{plate}}.parquet", plate=IMAGES),
        wells=f"{RESULTS}/wells.parquet",
        hits=f"{RESULTS}/hits.parquet",
        models=FOLDS if MODEL == f"{RESULTS}/model" else [],
    output:
        table=f"{RESULTS}/baseline.parquet",
        wells=f"{RESULTS}/baseline_wells.parquet",
        folds=f"{RESULTS}/baseline_folds.parquet",
    log:
        f"{RESULTS}/logs/baseline.log",
    benchmark:
        f"{RESULTS}/logs/benchmarks/baseline.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 8
    params:
        compared=compared("baseline", "hits"),
        cells=lambda wildcards, input: repeated("--cells", input.cells),
        models=lambda wildcards, output: MODEL,
        output=lambda wildcards, output: str(Path(output.table).parent),
        settings=settings("baseline", "hits"),
    shell:
        "wscnn baseline {params.cells:q} --wells {input.wells:q} --network {input.hits:q} --models {params.models:q}"
        " --output {params.output:q} {params.settings:q} > {log:q} 2>&1"
