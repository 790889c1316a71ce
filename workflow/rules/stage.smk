# A well one mosaic, a plate one OME-Zarr. The manifest stands for the plate, because `score` adds masks inside it.
rule stage:
    input:
        index=f"{RESULTS}/index/{{plate}}.parquet",
        scale=SCALE,
    output:
        manifest=f"{RESULTS}/plates/{{plate}}.json",
        qc=f"{RESULTS}/qc/{{plate}}.parquet",
    log:
        f"{RESULTS}/logs/stage/{{plate}}.log",
    benchmark:
        f"{RESULTS}/logs/benchmarks/stage-{{plate}}.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 16
    params:
        excluded=excluded_wells,
        compared=compared("acquisition", "mosaic", "illumination", "qc"),
        images=lambda wildcards, output: IMAGES[wildcards.plate],
        layout=LAYOUT,
        store=lambda wildcards: f"{RESULTS}/plates/{wildcards.plate}.zarr",
        scale=lambda wildcards, input: repeated("--scale", input.scale),
        settings=settings("acquisition", "mosaic", "illumination", "qc", "dask"),
    shell:
        "wscnn stage --plate {wildcards.plate:q} --index {input.index:q} --images {params.images:q}"
        " --store {params.store:q} --manifest {output.manifest:q} --quality {output.qc:q} --layout {params.layout:q} {params.scale:q} {params.settings:q} > {log:q} 2>&1"
