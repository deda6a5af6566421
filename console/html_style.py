"""How a page looks: light or dark as the reader has it, on a desk, on a phone and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --ink: #1c2126; --soft: #58636e; --line: #dfe4e8; --track: #e9edf0; --band: #f5f7f8;
  --measured: #0072b2; --guide: #c2500a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #13171b; --ink: #e4e8eb; --soft: #9ba7b2; --line: #2d343b; --track: #262d34; --band: #1a2026;
    --measured: #56b4e9; --guide: #f09048;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 78rem; padding: 2.5rem 1.5rem 4rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word;
}
h1, h2, h3, h4 { line-height: 1.25; }
h1 { font-size: 2rem; margin: 0 0 1.25rem; }
h2 { font-size: 1.4rem; margin: 3.5rem 0 .5rem; padding-top: 1.25rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2rem 0 .25rem; }
h4 { font-size: .85rem; margin: 1rem 0 .25rem; font-weight: 400; color: var(--soft); }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--measured); }
.kicker { margin: 0; color: var(--soft); font-size: .85rem; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.25rem; margin: 0; font-size: .9rem; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; }
.conclusions { margin: 1.75rem 0 0; padding: .25rem 0 .25rem 1.1rem; border-left: 4px solid var(--measured); }
.conclusions p { font-size: 1.15rem; line-height: 1.4; max-width: 52rem; }
.notes { margin: 1rem 0 0; padding-left: 1.2rem; color: var(--soft); font-size: .9rem; }
nav { margin-top: 1.75rem; font-size: .9rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: 0; padding: 0; list-style: none; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: .75rem 0; padding: 0; list-style: none; }
.key { font-size: .9rem; }
.key svg { width: 1.6rem; height: .7rem; margin-right: .4rem; }
svg { overflow: visible; }
.track { fill: var(--track); }
.measured-bar { fill: var(--measured); }
.estimated-bar { fill: var(--page); stroke: var(--measured); stroke-width: 1.5; }
.guide-bar { fill: none; stroke: var(--guide); stroke-width: 1.5; stroke-dasharray: 3 3; }
.beyond { fill: none; stroke: var(--page); stroke-width: 2; }
.estimated-beyond { stroke: var(--measured); }
.bars { margin: 0; padding: 0; list-style: none; font-size: .9rem; }
.bars li {
  display: grid; grid-template-columns: 17rem minmax(6rem, 1fr) 3.5rem 10.5rem 20rem; gap: 0 1rem; align-items: center;
  padding: .22rem 0;
}
.bars svg { width: 100%; height: .75rem; display: block; }
.share { text-align: right; font-weight: 600; font-variant-numeric: tabular-nums; }
.value { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.against { color: var(--soft); font-size: .8rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiers { margin: 1rem -.5rem 0; }
.tiers svg { width: 100%; height: auto; display: block; }
.tiers svg * { stroke-linejoin: round; stroke-linecap: butt; }
.tiers .narrow { display: none; }
.scroll { overflow-x: auto; margin: .75rem 0; border: 1px solid var(--line); border-radius: 6px; }
.scroll:focus-visible { outline: 2px solid var(--measured); }
table { border-collapse: collapse; width: 100%; font-size: .85rem; line-height: 1.35; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top; font-weight: 400; }
thead th { color: var(--soft); white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody + tbody { border-top: 1px solid var(--line); }
.group th { background: var(--band); font-weight: 600; }
.group span { position: sticky; left: .7rem; display: inline-block; max-width: min(60rem, calc(100vw - 4rem)); }
tbody tr + tr:not(.group) > * { border-top: 1px solid color-mix(in srgb, var(--line) 55%, transparent); }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.measured .median { font-weight: 600; }
.estimated .median, .guide .median { font-style: italic; }
.name { min-width: 13rem; }
.limit { min-width: 12rem; }
.kind { min-width: 7.5rem; }
.kind svg { width: .7rem; height: .7rem; margin-right: .4rem; }
.note { color: var(--soft); min-width: 14rem; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
footer { color: var(--soft); font-size: .85rem; }
@media (min-width: 68rem) {
  #tiers .name { min-width: 20rem; }
}
@media (max-width: 68rem) {
  .bars li { grid-template-columns: max-content 1fr max-content; gap: 0 .75rem; align-items: baseline; }
  .bars li { padding: .45rem 0; }
  .bars .what { grid-column: 1 / 3; }
  .bars .share { grid-row: 1; grid-column: 3; }
  .bars svg { grid-column: 1 / -1; }
  .bars .value { font-size: .85rem; }
  .bars .against { grid-column: 2 / -1; }
  .bars svg { margin: .2rem 0; }
}
@media (max-width: 40rem) {
  body { padding: 1.25rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dd { margin-bottom: .4rem; }
  .conclusions p { font-size: 1.05rem; }
  .tiers .wide { display: none; }
  .tiers .narrow { display: block; }
  tbody th.name { min-width: 8.5rem; max-width: 9.5rem; }
  thead th:first-child, tbody tr:not(.group) > .name { position: sticky; left: 0; background: var(--page); z-index: 1; }
}
@media print {
  body { max-width: none; padding: 0; }
  nav { display: none; }
  .scroll { overflow: visible; border: 0; }
  tr, .bars li { break-inside: avoid; }
}
"""
