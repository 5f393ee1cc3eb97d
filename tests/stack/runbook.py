"""RUNBOOK.md's commands, as far as they can be checked without typing them: every `aws` command and its options exist, the
blocks are shell, and what is read from the stack (outputs, logical ids) is in template.yaml."""

import re
import subprocess
import sys

import botocore.session
import yaml
from botocore import xform_name

import deploy

# Of the commands that are the CLI's own.
OWN = {("s3", "cp"): {"metadata-directive"}, ("s3", "ls"): {"recursive"}}
EVERYWHERE = {"query", "output"}


def template():
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda *_: None)
    return yaml.load((deploy.ROOT / "template.yaml").read_text(), Loader)


def options_of(session, service, operation):
    model = session.get_service_model("s3" if service == "s3api" else service)
    names = {xform_name(name).replace("_", "-"): name for name in model.operation_names}
    shape = model.operation_model(names[operation]).input_shape
    members = shape.members if shape else {}
    options = {xform_name(name).replace("_", "-") for name in members}
    return options | {f"no-{xform_name(name)}" for name, member in members.items() if member.type_name == "boolean"}


def main():
    text = (deploy.ROOT / "RUNBOOK.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    problems, commands, session = [], 0, botocore.session.get_session()
    for block in blocks:
        ended = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        problems += [ended.stderr] if ended.returncode else []
        # A command ends where the next one begins; what stands between belongs to it.
        for command in re.split(r"(?=\baws [a-z0-9]+ [a-z-]+)", block.replace("\\\n", " "))[1:]:
            service, operation = re.match(r"aws ([a-z0-9]+) ([a-z0-9-]+)", command).groups()
            commands += 1
            try:
                known = OWN[service, operation] if service == "s3" else options_of(session, service, operation)
            except (KeyError, botocore.exceptions.UnknownServiceError):
                problems.append(f"there is no aws {service} {operation}")
                continue
            said = set(re.findall(r"(?<=\s)--([a-z-]+)", re.split(r"[|;]|\n(?!\s)", command)[0]))
            problems += [f"aws {service} {operation} has no --{option}" for option in sorted(said - known - EVERYWHERE)]
    stack = template()
    for output in set(re.findall(r"\b(?:out|depth|look|move) \"?([A-Z]\w+)", text)) - stack["Outputs"].keys():
        problems.append(f"template.yaml has no output {output}")
    for logs in set(re.findall(r"\blogs (\w+Logs)", text)) - stack["Resources"].keys():
        problems.append(f"template.yaml has no {logs}")
    for parameter in set(re.findall(r'SET="([A-Z]\w+)=', text)) - stack["Parameters"].keys() - {"Parameter"}:
        problems.append(f"template.yaml has no parameter {parameter}")
    if problems or commands < 20:
        sys.exit("\n".join(problems) or f"only {commands} commands were found")
    print(f"[runbook] {commands} aws commands in {len(blocks)} blocks are commands of the AWS CLI")


if __name__ == "__main__":
    main()
