rule download:
    input:
        registry=lambda wildcards: local(DATASETS[wildcards.dataset].source.registry),
    output:
        files=local("<data>/{dataset}.files.csv"),
    log:
        "<logs>/download/{dataset}.log",
    benchmark:
        "<benchmarks>/download/{dataset}.tsv"
    localrule: True
    conda:
        "../envs/dvlae.yaml"
    params:
        dataset=download_settings,
        data=lambda wildcards, output: str(Path(output.files).parent),
    message:
        "Downloading {wildcards.dataset}; log in {log}"
    shell:
        "dvlae download {params.dataset:q} --data {params.data:q} --output {output.files:q} 2>&1 | tee -i {log:q} || failed {log:q}"


rule simulate:
    input:
        unpack(recorded_files),
    output:
        images=directory("<results>/{dataset}/simulated"),
    log:
        "<logs>/simulate/{dataset}.log",
    benchmark:
        "<benchmarks>/simulate/{dataset}.tsv"
    conda:
        "../envs/dvlae.yaml"
    params:
        dataset=image_settings,
        data=config["data"],
        unwatched=unwatched_files,
        revision=revision.PREPARE,
    shell:
        "dvlae simulate {params.dataset:q} --data {params.data:q} --output {output.images:q} > {log:q} 2>&1 || failed {log:q}"


rule prepare:
    input:
        unpack(files_to_prepare),
    output:
        images=directory("<results>/{dataset}/images"),
    log:
        "<logs>/prepare/{dataset}.log",
    benchmark:
        "<benchmarks>/prepare/{dataset}.tsv"
    conda:
        "../envs/dvlae.yaml"
    params:
        dataset=image_settings,
        data=config["data"],
        simulated=lambda wildcards, input: option("--simulated", input.get("simulated")),
        unwatched=unwatched_files,
        revision=revision.PREPARE,
    shell:
        "dvlae prepare {params.dataset:q} --data {params.data:q} {params.simulated:q} --output {output.images:q} > {log:q} 2>&1 || failed {log:q}"


rule extract_patches:
    input:
        images=rules.prepare.output.images,
        names=names_file("training"),
    output:
        patches=directory("<results>/{dataset}/patches"),
    log:
        "<logs>/extract_patches/{dataset}.log",
    benchmark:
        "<benchmarks>/extract_patches/{dataset}.tsv"
    conda:
        "../envs/dvlae.yaml"
    params:
        settings=patch_settings,
        revision=revision.PATCHES,
    shell:
        "dvlae extract-patches {input.images:q} {output.patches:q} --settings {params.settings:q} > {log:q} 2>&1 || failed {log:q}"


rule register:
    input:
        images=rules.prepare.output.images,
        names=names_file("evaluation"),
    output:
        targets="<results>/{dataset}/targets.csv",
    log:
        "<logs>/register/{dataset}.log",
    benchmark:
        "<benchmarks>/register/{dataset}.tsv"
    conda:
        "../envs/dvlae.yaml"
    threads: registration_threads
    params:
        settings=evaluation_settings,
        revision=revision.EVALUATION,
    shell:
        "dvlae register {input.images:q} {output.targets:q} --settings {params.settings:q} --cores {threads} > {log:q} 2>&1 || failed {log:q}"


rule diagnose:
    input:
        images=rules.prepare.output.images,
        targets=rules.register.output.targets,
        names=names_file("evaluation"),
    output:
        found="<results>/figures/noise_{dataset}.json",
        figure=reported(
            "<results>/figures/noise_{dataset}.png",
            "noise",
            "3 Noise",
            "Figure: direction, length and strength of the noise ({dataset})",
        ),
        vector="<results>/figures/noise_{dataset}.svg",
    log:
        "<logs>/diagnose/{dataset}.log",
    benchmark:
        "<benchmarks>/diagnose/{dataset}.tsv"
    conda:
        "../envs/dvlae.yaml"
    params:
        settings=evaluation_settings,
        noise_direction=lambda wildcards: DATASETS[wildcards.dataset].noise_direction,
        revision=revision.DIAGNOSIS,
    shell:
        "dvlae diagnose {input.images:q} --output {output.found:q} --dataset {wildcards.dataset:q}"
        " --noise-direction {params.noise_direction} --settings {params.settings:q} --targets {input.targets:q}"
        " 2>&1 | tee -i {log:q} || failed {log:q}"
