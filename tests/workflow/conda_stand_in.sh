#!/bin/bash
# Stands in for conda in tests, where conda is not to be had: `conda create` sees nothing but the one file that Snakemake
# copied, checks that it needs no other, and makes an environment whose python is the one of the tests.
echo "conda $*" >> "$STAND_IN_LOG"
case "$1 $2" in
"info --json") echo "{\"conda_prefix\": \"$STAND_IN_PREFIX\", \"platform\": \"linux-64\"}" ;;
"--version "*) echo "conda 24.9.2" ;;
"config --get"*) echo '{"get": {"channel_priority": "strict"}}' ;;
"env create"*)
    while [ $# -gt 0 ]; do
        [[ $1 == --file=* ]] && file=${1#--file=}
        [[ $1 == --file ]] && file=$2
        [[ $1 == --prefix=* ]] && prefix=${1#--prefix=}
        [[ $1 == --prefix ]] && prefix=$2
        shift
    done
    alone=$(mktemp -d) && cp "$file" "$alone/environment.yaml" || exit 1
    "$STAND_IN_PYTHON" - "$alone/environment.yaml" <<'CHECK' || exit 1
import sys, yaml
from packaging.requirements import Requirement
listed = yaml.safe_load(open(sys.argv[1]))["dependencies"]
for line in next(entry["pip"] for entry in listed if isinstance(entry, dict)):
    Requirement(line)  # not -r or -e, which name other files
CHECK
    mkdir -p "$prefix/bin" && printf '#!/bin/sh\necho ran >> "$STAND_IN_LOG"; exec "$STAND_IN_PYTHON" "$@"\n' > "$prefix/bin/python" && chmod +x "$prefix/bin/python"
    ;;
esac
