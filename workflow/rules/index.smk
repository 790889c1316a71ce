# A row an image file, from names and metadata.
rule index:
    input:
        # Checked once: a mended layout does not ask for every plate again.
        layout=ancient(f"{RESULTS}/layout.parquet"),
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
        settings=settings("acquisition"),
    shell:
        "wscnn index --plate {wildcards.plate:q} --images {input.images:q} --output {output:q} --layout {input.layout:q} {params.settings:q} > {log:q} 2>&1"
