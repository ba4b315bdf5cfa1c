rule baseline:
    input:
        images=rules.prepare.output.images,
        targets=rules.register.output.targets,
        names=names_file("evaluation"),
    output:
        denoised=part_output("<results>/{dataset}/{method}/seed{seed}/denoised", directory),
        record=part_output("<results>/{dataset}/{method}/seed{seed}/baseline.json"),
    log:
        in_part("<logs>/baseline/{dataset}/{method}/seed{seed}.log"),
    benchmark:
        in_part("<benchmarks>/baseline/{dataset}/{method}/seed{seed}.tsv")
    wildcard_constraints:
        method=BASELINES,
    conda:
        "../envs/dvlae.yaml"
    threads: baseline_threads
    params:
        settings=evaluation_settings,
        part=part_option,
        revision=revision.EVALUATION,
    shell:
        "dvlae baseline {wildcards.method:q} {input.images:q} --denoised {output.denoised:q}"
        " --settings {params.settings:q} --targets {input.targets:q} {params.part} --cores {threads}"
        " > {log:q} 2>&1 || failed {log:q}"


rule evaluate:
    input:
        images=rules.prepare.output.images,
        denoised="<results>/{dataset}/{method}/seed{seed}/denoised",
        targets=rules.register.output.targets,
        names=names_file("evaluation"),
    output:
        psnr=part_output("<results>/{dataset}/{method}/seed{seed}/psnr.csv"),
        record=part_output("<results>/{dataset}/{method}/seed{seed}/evaluation.json"),
    log:
        in_part("<logs>/evaluate/{dataset}/{method}/seed{seed}.log"),
    benchmark:
        in_part("<benchmarks>/evaluate/{dataset}/{method}/seed{seed}.tsv")
    conda:
        "../envs/dvlae.yaml"
    threads: evaluation_threads
    params:
        settings=evaluation_settings,
        receptive_field=lambda wildcards: option("--receptive-field", METHODS[wildcards.method].receptive_field),
        part=part_option,
        revision=revision.EVALUATION,
    shell:
        "dvlae evaluate {input.images:q} {input.denoised:q} {output.psnr:q} --dataset {wildcards.dataset:q}"
        " --method {wildcards.method:q} {params.receptive_field} --seed {wildcards.seed}"
        " --settings {params.settings:q} --targets {input.targets:q} {params.part} --cores {threads}"
        " > {log:q} 2>&1 || failed {log:q}"
