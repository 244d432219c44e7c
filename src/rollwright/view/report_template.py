"""The page of `report.html`, a Jinja template rendered with autoescape."""

# The content policy is a second lock behind the escaping: no script may run and nothing may be fetched.
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #1c2024; }
pre { background: #f5f6f8; padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.table { white-space: pre; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } figcaption { font-size: 13px; }
svg text { font: 10px sans-serif; fill: #5b6470; } .axis { fill: none; stroke: #c3c8d0; }
.curve { fill: none; stroke: #2458b8; stroke-width: 1.4; } .last { fill: #2458b8; }
details { border-left: 3px solid #d9dde3; padding-left: .8rem; margin: .5rem 0; } summary { cursor: pointer; }
.success { border-color: #2e8b57; } .fault { border-color: #c0392b; }
.role { color: #5b6470; font-size: 13px; margin: .6rem 0 0; } .action { background: #eaf1fd; }
.outcome { font-size: 13px; } img { max-width: 320px; border: 1px solid #d9dde3; }
td, th { text-align: left; padding: .1rem .8rem .1rem 0; }
</style></head><body>
<h1>{{ name }}</h1>
{% for note in notes %}
<p class="note">Note: {{ note | visible }}</p>
{% endfor %}
<h2>Evaluations</h2>
{% for text in progress %}
<pre class="table">{{ text | visible }}</pre>
{% endfor %}
{% for text in tables %}
<pre class="table">{{ text | visible }}</pre>
{% else %}
<p>None yet.</p>
{% endfor %}
{% if ledger %}
<h2>Where the time went</h2>
{% for line in ledger %}
<p>{{ line | visible }}</p>
{% endfor %}
{% endif %}
{% if faults %}
<h2>Faults</h2>
<table><tr><th>count</th><th>kind</th><th>what</th><th>where</th></tr>
{% for fault in faults %}
<tr><td>{{ fault[0] }}</td>{% for word in fault[1:] %}<td>{{ word | visible }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
<h2>Curves</h2>
{% for area, found in areas.items() %}
<details{{ ' open' if area in ('eval', 'reward', 'rollout') }}><summary>{{ area }} ({{ found | length }})</summary>
<div class="charts">
{% for chart in found %}
<figure><figcaption>{{ chart.name }}: {{ '%.4g' % chart.last }}</figcaption>{{ chart.svg }}</figure>
{% endfor %}
</div></details>
{% else %}
<p>No metrics yet.</p>
{% endfor %}
<h2>Episodes</h2>
{% for episode in episodes %}
<details class="{{ 'fault' if episode.stop_reason.is_fault else 'success' if episode.success else 'other' }}">
<summary>{{ episode | headline }}</summary>
{% for line in episode | origins %}
<p class="outcome">{{ line }}</p>
{% endfor %}
{% for turn in episode.turns %}
{% for message in turn.observed %}
<p class="role">{{ message.role }}</p>
<pre>{{ message.content | visible }}</pre>
{% endfor %}
{% for uri in turn.attachments | map('picture') | select %}
<img src="{{ uri }}" alt="screenshot">
{% endfor %}
<p class="role">turn {{ loop.index0 }}{{ turn | label }}: action</p>
<pre class="action">{{ turn.text | visible }}</pre>
{% if turn | outcome %}
<p class="outcome">{{ turn | outcome }}</p>
{% endif %}
{% endfor %}
{% if episode.fault %}
<p class="outcome">fault: {{ episode.fault | visible }}</p>
{% endif %}
</details>
{% else %}
<p>No trajectories yet.</p>
{% endfor %}
{% if story %}
<h2>What this run was</h2>
{% for line in story %}
<p>{{ line | visible }}</p>
{% endfor %}
{% endif %}
{% if config %}
<h2>Configuration</h2>
<pre>{{ config }}</pre>
{% endif %}
</body></html>
"""
