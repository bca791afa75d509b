"""plot: bars of medians with their range, by gnuplot, as PNG."""

import os
import shutil
import statistics
import subprocess

_SCRIPT = """set terminal pngcairo size 1000,600 font 'sans,11'
set output '{png}'
set title '{title}' noenhanced
set ylabel '{unit}'
set yrange [0:*]
set style fill solid 0.8 border -1
set boxwidth 0.7
set grid ytics
set xtics rotate by -25 noenhanced
unset key
$data << END
{rows}
END
plot $data using 0:3:6:xtic(2) with boxes lc rgb variable notitle, \\
     $data using 0:3:4:5 with yerrorbars lc rgb 'black' pt 0
"""


def bars(folder, name, title, unit, values):
    """values: a list of numbers by label. Returns the file, None without gnuplot."""
    if not shutil.which("gnuplot"):
        return None
    png = os.path.join(folder, f"{name}.png")
    rows = []
    for place, (label, numbers) in enumerate(values.items()):
        colour = 0x2060A0 if label.startswith("farswap") else 0xA0A0A0
        rows.append(f'{place} "{label}" {statistics.median(numbers)} {min(numbers)} {max(numbers)} '
                    f'{colour}')
    script = _SCRIPT.format(png=png, title=title, unit=unit, rows="\n".join(rows))
    done = subprocess.run(["gnuplot"], input=script, text=True, capture_output=True)
    if done.returncode != 0:
        print(f"gnuplot: {done.stderr.strip()}", flush=True)
        return None
    return png
