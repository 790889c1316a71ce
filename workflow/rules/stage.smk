# One mosaic per well, one OME-Zarr per plate. The manifest stands for the plate, because `score` adds masks inside it.
rule stage:
    input:
        index=SCREEN.index("{plate}"),
        scale=SCALE,
    output:
        manifest=SCREEN.manifest("{plate}"),
        qc=SCREEN.quality("{plate}"),
    log:
        SCREEN.log("stage", "{plate}"),
    benchmark:
        SCREEN.benchmark("stage", "{plate}")
    conda:
        "../../envs/environment.yaml"
    threads: 16
    params:
        excluded=excluded_wells,
        compared=compared("acquisition", "mosaic", "illumination", "qc"),
        images=lambda wildcards, output: IMAGES[wildcards.plate],
        layout=LAYOUT,
        store=lambda wildcards: str(SCREEN.plate(wildcards.plate)),
        scale=lambda wildcards, input: repeated("--scale", input.scale),
        settings=settings("acquisition", "mosaic", "illumination", "qc", "dask"),
    shell:
        "wscnn stage --plate {wildcards.plate:q} --index {input.index:q} --images {params.images:q}"
        " --store {params.store:q} --manifest {output.manifest:q} --quality {output.qc:q} --layout {params.layout:q} {params.scale:q} {params.settings:q} > {log:q} 2>&1"
