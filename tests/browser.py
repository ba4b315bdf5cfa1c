"""Looking at pages as a reader would: in a browser without a window."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROBE = """
<script>
addEventListener("load", async () => {
  const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  const look = async () => { %s };
  const found = await look().catch((error) => ({ error: error.stack }));
  const output = Object.assign(document.createElement("pre"), { id: "found", textContent: JSON.stringify(found) });
  document.body.append(output);
});
</script>
"""


def look(page: Path, script: str):
    """Open a page, run a script in it (the body of an async function) and return what that returns."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    before, end, after = page.read_text(encoding="utf-8").rpartition("</body>")
    probed = page.with_name(f"probed {page.name}")
    probed.write_text(before + PROBE % script + end + after, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=60000"]
    options.append(f"--user-data-dir={page.parent / 'browser'}")
    done = subprocess.run(
        [chromium, *options, "--dump-dom", probed.as_uri()], capture_output=True, text=True, timeout=300
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(html.unescape(found[1]))
