# Textbook features of a plate's nuclei, one row per nucleus.
rule measure:
    input:
        manifest=SCREEN.manifest("{plate}"),
        qc=SCREEN.quality("{plate}"),
    output:
        SCREEN.cells("{plate}"),
    log:
        SCREEN.log("measure", "{plate}"),
    benchmark:
        SCREEN.benchmark("measure", "{plate}")
    conda:
        "../../envs/environment.yaml"
    threads: 8
    params:
        store=lambda wildcards: str(SCREEN.plate(wildcards.plate)),
        nuclei=(
            ["--nuclei", config["acquisition"]["nuclei"]]
            if config["acquisition"]["nuclei"]
            else []
        ),
        settings=settings("dask"),
    shell:
        "wscnn measure --store {params.store:q} --quality {input.qc:q} --output {output:q} {params.nuclei:q} {params.settings:q}"
        " > {log:q} 2>&1"


# Simpler methods on the same wells, with the same folds and hit calls.
rule baseline:
    input:
        cells=[SCREEN.cells(plate) for plate in IMAGES],
        wells=SCREEN.table("wells"),
        hits=SCREEN.table("hits"),
        models=FOLDS if MODEL == SCREEN.model else [],
    output:
        table=SCREEN.table("baseline"),
        wells=SCREEN.table("baseline_wells"),
        folds=SCREEN.table("baseline_folds"),
    log:
        SCREEN.log("baseline"),
    benchmark:
        SCREEN.benchmark("baseline")
    conda:
        "../../envs/environment.yaml"
    threads: 8
    params:
        compared=compared("baseline", "hits"),
        cells=lambda wildcards, input: repeated("--cells", input.cells),
        models=lambda wildcards, output: str(MODEL.path),
        output=lambda wildcards, output: str(Path(output.table).parent),
        settings=settings("baseline", "hits"),
    shell:
        "wscnn baseline {params.cells:q} --wells {input.wells:q} --network {input.hits:q} --models {params.models:q}"
        " --output {params.output:q} {params.settings:q} > {log:q} 2>&1"
