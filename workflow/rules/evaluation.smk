rule baseline:
    input:
        images=rules.prepare.output.images,
        targets=rules.register.output.targets,
        names=names_file("evaluation"),
    output:
        denoised=directory("<results>/{dataset}/{method}/seed{seed}/denoised"),
        record="<results>/{dataset}/{method}/seed{seed}/baseline.json",
    log:
        "<logs>/baseline/{dataset}/{method}/seed{seed}.log",
    benchmark:
        "<benchmarks>/baseline/{dataset}/{method}/seed{seed}.tsv"
    wildcard_constraints:
        method=BASELINES,
    conda:
        "../envs/dvlae.yaml"
    threads: baseline_threads
    params:
        settings=evaluation_settings,
        revision=revision.EVALUATION,
    shell:
        "dvlae baseline {wildcards.method:q} {input.images:q} --denoised {output.denoised:q}"
        " --settings {params.settings:q} --targets {input.targets:q} --cores {threads} > {log:q} 2>&1 || failed {log:q}"


rule evaluate:
    input:
        images=rules.prepare.output.images,
        denoised="<results>/{dataset}/{method}/seed{seed}/denoised",
        targets=rules.register.output.targets,
        names=names_file("evaluation"),
    output:
        psnr="<results>/{dataset}/{method}/seed{seed}/psnr.csv",
        record="<results>/{dataset}/{method}/seed{seed}/evaluation.json",
    log:
        "<logs>/evaluate/{dataset}/{method}/seed{seed}.log",
    benchmark:
        "<benchmarks>/evaluate/{dataset}/{method}/seed{seed}.tsv"
    conda:
        "../envs/dvlae.yaml"
    threads: evaluation_threads
    params:
        settings=evaluation_settings,
        receptive_field=lambda wildcards: option("--receptive-field", METHODS[wildcards.method].receptive_field),
        revision=revision.EVALUATION,
    shell:
        "dvlae evaluate {input.images:q} {input.denoised:q} {output.psnr:q} --dataset {wildcards.dataset:q}"
        " --method {wildcards.method:q} {params.receptive_field} --seed {wildcards.seed}"
        " --settings {params.settings:q} --targets {input.targets:q} --cores {threads} > {log:q} 2>&1 || failed {log:q}"
