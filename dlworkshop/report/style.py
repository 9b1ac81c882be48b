"""The style sheet of all pages."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1a1d21;
  --soft: #545b64; --line: #d5d9de; --link: #00588a; --good: #006b4e; --bad: #a84300; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --card: #1f2327; --ink: #eceff2; --soft: #aab2bb;
    --line: #3a4148; --link: #7cc4f0; --good: #4fd1a5; --bad: #ff9d5c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 1.0625rem/1.5 system-ui, sans-serif; }
header, main, footer { max-width: 70rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.375rem; font-weight: 600; color: var(--soft); margin: 0;
  overflow-wrap: anywhere; }
.finding { font-size: clamp(1.5rem, 4.5vw, 2.375rem); line-height: 1.2;
  font-weight: 700; margin: .25rem 0 .75rem; text-wrap: balance;
  overflow-wrap: anywhere; }
.note, figcaption, footer { color: var(--soft); font-size: .9375rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none;
  padding: 0; margin: 1rem 0 0; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
section { margin-top: 2.5rem; }
h2 { font-size: 1.375rem; margin: 0 0 .75rem; }
data { white-space: nowrap; }
.tiles { display: grid; gap: .75rem; margin: 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
.tiles div, .scroll { background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; }
.tiles div { padding: .75rem 1rem; }
dt { color: var(--soft); font-size: .9375rem; }
dd { margin: 0; font-size: 1.25rem; font-weight: 650; line-height: 1.25; }
dd + dd { font-size: .9375rem; font-weight: 400; color: var(--soft); }
@media (max-width: 34rem) { .tiles { grid-template-columns: 1fr 1fr; gap: .5rem; }
  .tiles div { padding: .5rem .75rem; } .tiles dd:nth-child(2) { font-size: 1rem; }
  .tiles data { white-space: normal; } }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
figure { margin: 0; min-width: 0; }
.chart > svg { display: block; width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: .5rem; padding: .5rem; }
.chart svg * { stroke-linejoin: round; stroke-linecap: butt; }
.single { max-width: 46rem; }
figcaption { margin-top: .5rem; }
.look { margin: 0 0 .5rem; max-width: 46rem; } h1.finding { color: var(--ink); }
section > figure + figure { margin-top: 2rem; }
.boxes { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 0 0 .5rem;
  align-items: center; }
.control { display: grid; grid-template-columns: minmax(0, 20rem) auto;
  justify-content: start; align-items: center; gap: .25rem .75rem; margin: 0 0 .5rem; }
.control:has([hidden]) { display: block; }
.control label { display: contents; } .control span { grid-column: 1 / -1; }
.control input { width: 100%; min-height: 1.5rem; margin: 0;
  accent-color: var(--link); }
.control output { font-weight: 650; font-variant-numeric: tabular-nums; }
.boxes input { width: 1.125rem; height: 1.125rem; vertical-align: -.125rem;
  accent-color: var(--link); }
.tip { margin: .375rem 0 0; min-height: 1.5em; color: var(--soft); font-size: .9375rem;
  font-variant-numeric: tabular-nums; }
[data-tip]:hover { outline: 1.5px solid #00588a; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer; text-align: left; text-decoration: underline dotted; }
[aria-sort=ascending] button::after { content: " \\25b2"; }
[aria-sort=descending] button::after { content: " \\25bc"; }
figure + .scroll { margin-top: 1rem; }
.sized svg { display: block; width: 100%; min-width: var(--least); padding: .5rem; }
.wide { grid-column: 1 / -1; }
:is(.sized, .wide) > .scroll { background: #fff; }
.wide svg { display: block; width: 100%; min-width: 44rem; padding: .5rem; }
.facts { display: flex; flex-wrap: wrap; column-gap: .5rem; }
.facts > span:not(:last-child)::after { content: ";"; }
.claims, .exercises { padding: 0; margin: 0; display: grid; gap: .75rem;
  list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); }
.claim { background: var(--card); border: 1px solid var(--line);
  border-left: .375rem solid var(--good); border-radius: .5rem;
  padding: .625rem .875rem; overflow-wrap: anywhere; }
.bad-claim { border-left-color: var(--bad); }
.claim p { margin: .125rem 0 0; }
.claim summary { font-weight: 400; font-size: .9375rem; padding: .125rem 0 0; }
.verdict { margin-right: .625rem; white-space: nowrap; }
.exercises > li { background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; padding: .625rem .875rem; }
.exercises p { margin: .25rem 0; }
.cards { padding: 0; margin: 0; display: grid; gap: 1rem; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); padding: .75rem 1rem;
  border-radius: .5rem; }
.card h3 { margin: .5rem 0 0; font-size: 1.125rem; }
.card p { margin: .25rem 0; }
.card > a { display: block; }
.card img { display: block; width: 100%; height: 12rem; object-fit: contain;
  background: #fff; border-radius: .375rem; }
.verdicts { padding: 0; margin: .5rem 0; list-style: none; font-size: .9375rem; }
.cell { scroll-margin-top: 1rem; } .cell:not(:target) { display: none; }
.cell h3 { margin: 1rem 0 .5rem; font-size: 1.0625rem; }
.mistakes { display: grid; gap: 1rem .75rem; list-style: none; padding: 0; margin: 0;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.mistakes svg { display: block; width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: .5rem; padding: .375rem; }
.mistakes image { image-rendering: pixelated; }
.mistakes figcaption { overflow-wrap: anywhere; line-height: 1.35; }
.mistakes figcaption > * { display: block; }
.mistakes strong { color: var(--ink); }
.strip { display: block; width: 100%; margin: .25rem 0; } td .strip { width: 21rem; }
.strip image { image-rendering: pixelated; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .375rem .625rem; text-align: left; vertical-align: top;
  border-top: 1px solid var(--line); }
thead th, table:not(:has(thead)) tr:first-child > * { border-top: 0; }
thead th { color: var(--soft); font-size: .9375rem; white-space: nowrap; }
tbody th { font-weight: 600; min-width: 5rem; }
bdi { word-break: keep-all; }
table:not(:has(thead)) th { width: 16rem; }
table:not(:has(thead)) td { overflow-wrap: anywhere; min-width: 9rem; }
td > span { white-space: nowrap; }
td small { display: block; font-weight: 400; }
tr.best > * { font-weight: 650; }
.good, span.bad { font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
code { font: .9375em ui-monospace, monospace; overflow-wrap: anywhere; }
pre { margin: 0; padding: .75rem; font: .9375rem/1.35 ui-monospace, monospace; }
summary { cursor: pointer; padding: .375rem 0; color: var(--link); font-weight: 600; }
footer { padding: 2.5rem 1rem 3rem; }
math { font-size: 1.125em; }
.text { max-width: 46rem; }
.text p, .text ul, .text ol { margin: 0 0 .75rem; }
.beside { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: center;
  margin: 0 0 1rem; }
.beside > p { margin: 0; flex: 1 1 auto; min-width: 0; overflow-x: auto;
  padding: .25rem 0; }
.listing { flex: 1 1 auto; margin: 0 0 .75rem; min-width: 0; }
.listing figcaption { margin: 0 0 .125rem; }
.lead { font-size: 1.25rem; margin: 0 0 .75rem; max-width: 52rem; }
@media print { body { background: #fff; font-size: 10pt; } nav { display: none; }
  .control { display: block; } .control input, .boxes, .tip { display: none; }
  figure, tr, .tiles div { break-inside: avoid; } h2 { break-after: avoid; }
  .scroll, .beside > p { overflow: visible; } .listing { break-inside: auto; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 8pt; }
  table { font-size: 8pt; } th, td { padding: .25rem .375rem; min-width: 0; }
  thead th { font-size: inherit; white-space: normal; }
  tbody th, table:not(:has(thead)) :is(th, td) { min-width: 0; }
  .wide svg, .sized svg, td .strip { min-width: 0; max-width: 100%; }
  details:not(.exercises *, section:has(> :is(#code, #configuration)) *
    )::details-content { content-visibility: visible; block-size: auto; } }
"""
