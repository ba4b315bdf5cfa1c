rule make_environment:
    input:
        requirements=lambda wildcards: local(str(ENVIRONMENTS[wildcards.environment])),
    output:
        record=local("<data>/environments/{environment}.json"),
    log:
        "<logs>/make_environment/{environment}.log",
    benchmark:
        "<benchmarks>/make_environment/{environment}.tsv"
    localrule: True
    conda:
        "../envs/dvlae.yaml"
    message:
        "Making the environment {wildcards.environment}; log in {log}"
    shell:
        "dvlae make-environment {input.requirements:q} --output {output.record:q} > {log:q} 2>&1 || failed {log:q}"


rule download_code:
    input:
        registry=lambda wildcards: local(str(method_folder(method_of(wildcards)) / method_of(wildcards).file.files)),
    output:
        record=local("<data>/methods/{method}.json"),
    log:
        "<logs>/download_code/{method}.log",
    benchmark:
        "<benchmarks>/download_code/{method}.tsv"
    wildcard_constraints:
        method=names_of_methods(has_code),
    localrule: True
    conda:
        "../envs/dvlae.yaml"
    params:
        data=lambda wildcards, output: str(Path(output.record).parents[1]),
    message:
        "Downloading the files of {wildcards.method}; log in {log}"
    shell:
        "dvlae download-code {input.registry:q} --data {params.data:q} --output {output.record:q}"
        " > {log:q} 2>&1 || failed {log:q}"


rule search_method:
    input:
        unpack(method_inputs),
        images=rules.prepare.output.images,
        targets=rules.register.output.targets,
        names=names_file("evaluation"),
        # The diagnosis follows from the images; when only its figure changes, nothing has to run again.
        noise=ancient(rules.diagnose.output.found),
    output:
        found="<results>/{dataset}/{method}/search.json",
    log:
        "<logs>/search_method/{dataset}/{method}.log",
    benchmark:
        "<benchmarks>/search_method/{dataset}/{method}.tsv"
    wildcard_constraints:
        method=names_of_methods(searched),
    conda:
        "../envs/dvlae.yaml"
    threads: method_threads
    resources:
        gpu=method_gpus,
        device=config["device"],
        mem_mb=method_memory_mb,
        runtime=method_runtime,
    params:
        method=lambda wildcards: method_of(wildcards).given,
        file=lambda wildcards: method_of(wildcards).file.identity,
        settings=evaluation_settings,
        noise_direction=lambda wildcards: DATASETS[wildcards.dataset].noise_direction,
        block=lambda wildcards: DATASETS[wildcards.dataset].training.block,
        minutes=method_minutes,
        needs=method_options,
        revision=revision.METHODS,
    message:
        "Searching settings of {wildcards.method} for {wildcards.dataset}; log in {log}"
    shell:
        "dvlae search-method {params.method:q} {input.images:q} --output {output.found:q}"
        " --noise {input.noise:q} --noise-direction {params.noise_direction} --block {params.block}"
        " {params.minutes} {params.needs:q}"
        " --settings {params.settings:q} --targets {input.targets:q} --device {resources.device} --cores {threads}"
        " > {log:q} 2>&1 || failed {log:q}"


rule run_method:
    input:
        unpack(method_inputs),
        unpack(found_settings),
        images=rules.prepare.output.images,
        targets=rules.register.output.targets,
        names=names_file("evaluation"),
        noise=ancient(rules.diagnose.output.found),
    output:
        denoised=directory("<results>/{dataset}/{method}/seed{seed}/denoised"),
        record="<results>/{dataset}/{method}/seed{seed}/method.json",
    log:
        "<logs>/run_method/{dataset}/{method}/seed{seed}.log",
    benchmark:
        "<benchmarks>/run_method/{dataset}/{method}/seed{seed}.tsv"
    wildcard_constraints:
        method=names_of_methods(lambda method: has_file(method) and not divided(method)),
    conda:
        "../envs/dvlae.yaml"
    threads: method_threads
    resources:
        gpu=method_gpus,
        device=config["device"],
        mem_mb=method_memory_mb,
        runtime=method_runtime,
    params:
        method=lambda wildcards: method_of(wildcards).given,
        file=lambda wildcards: method_of(wildcards).file.identity,
        settings=evaluation_settings,
        noise_direction=lambda wildcards: DATASETS[wildcards.dataset].noise_direction,
        block=lambda wildcards: DATASETS[wildcards.dataset].training.block,
        minutes=method_minutes,
        needs=method_options,
        part=part_option,
        revision=revision.METHODS,
    message:
        "Denoising {wildcards.dataset} with {wildcards.method}, seed {wildcards.seed}; log in {log}"
    shell:
        "dvlae run-method {params.method:q} {input.images:q} --denoised {output.denoised:q} --seed {wildcards.seed}"
        " --noise {input.noise:q} --noise-direction {params.noise_direction} --block {params.block}"
        " {params.minutes} {params.needs:q}"
        " --settings {params.settings:q} --targets {input.targets:q} {params.part} --device {resources.device}"
        " --cores {threads} > {log:q} 2>&1 || failed {log:q}"


if JOBS > 1:

    use rule run_method as run_part_of_method with:
        output:
            denoised=part_output("<results>/{dataset}/{method}/seed{seed}/denoised", directory),
            record=part_output("<results>/{dataset}/{method}/seed{seed}/method.json"),
        log:
            in_part("<logs>/run_part_of_method/{dataset}/{method}/seed{seed}.log"),
        benchmark:
            in_part("<benchmarks>/run_part_of_method/{dataset}/{method}/seed{seed}.tsv")
        wildcard_constraints:
            method=names_of_methods(divided),


rule evaluate:
    input:
        unpack(suggested_field),
        images=rules.prepare.output.images,
        denoised="<results>/{dataset}/{method}/seed{seed}/denoised",
        record=method_record,
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
        receptive_field=lambda wildcards: option("--receptive-field", method_of(wildcards).receptive_field),
        noise=lambda wildcards, input: option("--noise", input.get("noise")),
        part=part_option,
        revision=revision.EVALUATION,
    shell:
        "dvlae evaluate {input.images:q} {input.denoised:q} {output.psnr:q} --dataset {wildcards.dataset:q}"
        " --method {wildcards.method:q} {params.receptive_field} {params.noise:q} --seed {wildcards.seed}"
        " --settings {params.settings:q} --targets {input.targets:q} {params.part} --cores {threads}"
        " > {log:q} 2>&1 || failed {log:q}"
