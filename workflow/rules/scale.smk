# How many raw pixels make a mosaic pixel (mosaic.downsample: auto). Decided once, from images read here: no file is an
# input, so that adding a plate or changing an image does not change the scale.
rule scale:
    output:
        SCALE,
    log:
        SCREEN.log("scale"),
    benchmark:
        SCREEN.benchmark("scale")
    conda:
        "../../envs/environment.yaml"
    params:
        compared=compared("acquisition", "mosaic"),
        # Changes when another model is applied.
        model=digest_of(*FOLDS) if config["model"]["checkpoint"] else "",
        plates=lambda wildcards, output: config["plates"],
        layout=LAYOUT,
        settings=settings("acquisition", "model"),
    shell:
        "wscnn scale --plates {params.plates:q} --layout {params.layout:q} --output {output:q} {params.settings:q} > {log:q} 2>&1"
