# One row per image file, from names and metadata. The folder of images is not an input: paths and times are not
# content.
rule index:
    output:
        SCREEN.index("{plate}"),
    log:
        SCREEN.log("index", "{plate}"),
    benchmark:
        SCREEN.benchmark("index", "{plate}")
    conda:
        "../../envs/environment.yaml"
    params:
        # Changes when images were overwritten, added or removed.
        state=images_state,
        excluded=excluded_wells,
        compared=compared("acquisition"),
        images=lambda wildcards, output: IMAGES[wildcards.plate],
        layout=LAYOUT,
        settings=settings("acquisition"),
    shell:
        "wscnn index --plate {wildcards.plate:q} --images {params.images:q} --output {output:q} --layout {params.layout:q} {params.settings:q} > {log:q} 2>&1"
