# A row an image file, from names and metadata.
rule index:
    input:
        images=lambda wildcards: IMAGES[wildcards.plate],
    output:
        f"{RESULTS}/index/{{plate}}.parquet",
    log:
        f"{RESULTS}/logs/index/{{plate}}.log",
    benchmark:
        f"{RESULTS}/logs/benchmarks/index-{{plate}}.tsv"
    conda:
        "../../envs/environment.yaml"
    params:
        # Tells the excluded wells; no input, for a mended layout does not ask for every plate again.
        layout=LAYOUT,
        settings=settings("acquisition"),
    shell:
        "wscnn index --plate {wildcards.plate:q} --images {input.images:q} --output {output:q} --layout {params.layout:q} {params.settings:q} > {log:q} 2>&1"
