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
        " --settings {params.settings:q} --targets {input.targets:q} {params.part} --cores {threads} > {log:q} 2>&1 || failed {log:q}"


if JOBS > 1:

    rule gather_baselines:
        input:
            denoised=part_inputs("<results>/{dataset}/{method}/seed{seed}/denoised"),
            records=part_inputs("<results>/{dataset}/{method}/seed{seed}/baseline.json"),
        output:
            denoised=directory("<results>/{dataset}/{method}/seed{seed}/denoised"),
            record="<results>/{dataset}/{method}/seed{seed}/baseline.json",
        log:
            "<logs>/gather_baselines/{dataset}/{method}/seed{seed}.log",
        benchmark:
            "<benchmarks>/gather_baselines/{dataset}/{method}/seed{seed}.tsv"
        wildcard_constraints:
            method=BASELINES,
        localrule: not STORAGE
        conda:
            "../envs/dvlae.yaml"
        params:
            # As in `baseline`, so that the same changes lead to a new result.
            settings=evaluation_settings,
            revision=revision.EVALUATION,
            parts=part_folders,
        shell:
            "dvlae gather {params.parts:q} --output {output:q} > {log:q} 2>&1 || failed {log:q}"


FILTERED = rules.baseline.output if JOBS == 1 else rules.gather_baselines.output


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
        " --settings {params.settings:q} --targets {input.targets:q} {params.part} --cores {threads} > {log:q} 2>&1 || failed {log:q}"


if JOBS > 1:

    rule gather_evaluations:
        input:
            psnr=part_inputs("<results>/{dataset}/{method}/seed{seed}/psnr.csv"),
            records=part_inputs("<results>/{dataset}/{method}/seed{seed}/evaluation.json"),
        output:
            psnr="<results>/{dataset}/{method}/seed{seed}/psnr.csv",
            record="<results>/{dataset}/{method}/seed{seed}/evaluation.json",
        log:
            "<logs>/gather_evaluations/{dataset}/{method}/seed{seed}.log",
        benchmark:
            "<benchmarks>/gather_evaluations/{dataset}/{method}/seed{seed}.tsv"
        localrule: not STORAGE
        conda:
            "../envs/dvlae.yaml"
        params:
            # As in `evaluate`, so that the same changes lead to a new result.
            settings=evaluation_settings,
            receptive_field=lambda wildcards: option("--receptive-field", METHODS[wildcards.method].receptive_field),
            revision=revision.EVALUATION,
            parts=part_folders,
        shell:
            "dvlae gather {params.parts:q} --output {output:q} > {log:q} 2>&1 || failed {log:q}"


MEASURED = rules.evaluate.output if JOBS == 1 else rules.gather_evaluations.output
