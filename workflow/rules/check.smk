# All that can be known before the first job: config, tables and file names agree. A checkpoint, because Snakemake does
# not look for changed settings below a job that runs again; after a checkpoint it plans anew.
checkpoint check:
    input:
        plates=config["plates"],
        layout=config["layout"],
    output:
        layout=f"{RESULTS}/layout.parquet",
        controls=f"{RESULTS}/controls.parquet",
    log:
        f"{RESULTS}/logs/check.log",
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        # The whole config, with what the command line changed in it.
        config=lambda wildcards: json.dumps(config, sort_keys=True),
    shell:
        "(printf '%s' {params.config:q} | wscnn check - --layout {output.layout:q} --controls {output.controls:q})"
        " > {log:q} 2>&1"
