"""How the report looks: light and dark, a phone and a wide screen, paper.

In:  -
Out: STYLE, the one style sheet; no font, no picture, no address
"""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5c6470; --line: #dfe2e7; --paper: #fff; --tint: #f5f6f8;
  --good: #14713d; --good-tint: #e8f5ec; --bad: #b3261e; --bad-tint: #fcecea; --even: #5c6470; --even-tint: #f1f2f4;
  --one: #2457c5; --two: #b45309; --three: #0f766e; --four: #7c3aed; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6ea; --soft: #9aa3b0; --line: #33383f; --paper: #15171a; --tint: #1d2024;
  --good: #6fd197; --good-tint: #16281d; --bad: #ff8a80; --bad-tint: #331a18; --even: #a6aeba; --even-tint: #22262b;
  --one: #8ab0ff; --two: #f0a860; --three: #5fc9bc; --four: #b9a0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 66rem; margin: 0 auto; padding: 1.6rem 1.25rem 5rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .7rem; padding-top: 1.1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.9rem 0 .5rem; }
p { max-width: 46rem; margin: .6rem 0; }
.sub { color: var(--soft); font-size: .93rem; margin: 0 0 .9rem; max-width: none; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--tint); padding: .08em .3em;
  border-radius: 3px; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1.1rem 0; font-size: .93rem; }
a { color: var(--one); text-decoration: none; } a:hover { text-decoration: underline; }
.good { --tone: var(--good); --tone-tint: var(--good-tint); } .bad { --tone: var(--bad); --tone-tint: var(--bad-tint); }
.even { --tone: var(--even); --tone-tint: var(--even-tint); }
.steps { list-style: none; margin: 0 0 1rem; padding: 0; border-top: 1px solid var(--line); }
.steps li { display: grid; grid-template-columns: minmax(0, 17rem) minmax(0, 1fr) 14rem 14rem; gap: 0 1rem; align-items: baseline;
  padding: .42rem .2rem; border-bottom: 1px solid var(--line); font-size: .95rem; }
.steps .who { color: var(--soft); font-size: .84rem; display: block; line-height: 1.3; }
.steps strong { color: var(--tone); font-weight: 650; }
.steps .change { font-size: .9rem; } .steps .change span { display: block; color: var(--soft); font-size: .8rem; line-height: 1.3; }
.facts { display: grid; gap: .7rem; grid-template-columns: repeat(4, minmax(0, 1fr)); margin: 0 0 1rem; }
.fact { background: var(--tone-tint); border-radius: 6px; padding: .55rem .8rem .65rem; overflow-wrap: anywhere; }
.fact dt { font-size: .82rem; color: var(--soft); } .fact dd { margin: 0; }
.fact .value { font-size: 1.1rem; font-weight: 650; color: var(--tone); line-height: 1.3; }
.fact .note { font-size: .82rem; line-height: 1.35; color: var(--ink); margin-top: .15rem; }
.findings { display: grid; gap: .8rem; margin: 1.2rem 0; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.finding { border-left: 4px solid var(--tone); border-radius: 4px; padding: .8rem 1rem .9rem; background: var(--tone-tint); }
.finding p { margin: .35rem 0 0; font-size: .94rem; color: var(--ink); }
.finding .question { font-size: .88rem; color: var(--soft); }
.finding .answer { font-size: 1.15rem; font-weight: 650; color: var(--tone); }
.wide { overflow-x: auto; margin: .9rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .38rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: .84rem; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { text-align: left; padding-left: .2rem; position: sticky; left: 0; background: var(--paper); }
td:first-child { font-weight: 550; }
.words { text-align: left; white-space: normal; min-width: 9rem; }
.range { color: var(--soft); font-size: .82rem; display: block; }
.charts { display: grid; gap: 1.5rem 2.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr)); margin: 1.2rem 0; }
figure { margin: 0; } figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .5rem; }
figure .note { color: var(--soft); font-size: .82rem; margin: .3rem 0 0; }
.row { display: grid; grid-template-columns: 6.6rem 1fr; align-items: center; padding: .28rem 0;
  border-top: 1px solid var(--line); font-size: .88rem; }
.mark { display: grid; grid-template-columns: 1fr 4.2rem; align-items: center; gap: .6rem; }
.track { position: relative; height: 1.15rem; }
.track i { position: absolute; top: 50%; height: 3px; margin-top: -1.5px; border-radius: 2px; opacity: .5; background: var(--c); }
.track b { position: absolute; top: 50%; width: 9px; height: 9px; margin: -4.5px 0 0 -4.5px; border-radius: 50%; background: var(--c); }
.mark span { text-align: right; color: var(--c); font-size: .84rem; }
.s0 { --c: var(--one); } .s1 { --c: var(--two); } .s2 { --c: var(--three); } .s3 { --c: var(--four); }
.s4 { --c: var(--even); } .s5 { --c: var(--good); }
.axis { display: flex; justify-content: space-between; margin: .15rem 4.8rem 0 6.6rem; color: var(--soft); font-size: .78rem; }
.key { font-size: .84rem; color: var(--soft); } .key b { color: var(--c); font-weight: 600; margin-right: .8rem; }
.stack { display: flex; height: 1.3rem; border-radius: 3px; overflow: hidden; }
.stack i { background: var(--c); border-right: 1px solid var(--paper); }
svg { display: block; width: 100%; height: 20rem; overflow: visible; font-size: 12px; }
svg line { stroke: var(--line); } svg text { fill: var(--soft); } svg circle { fill: var(--tone); stroke: var(--paper); stroke-width: 2; }
svg .in { fill: var(--paper); font-weight: 600; font-size: 11px; text-anchor: middle; } svg .name { fill: var(--ink); font-weight: 600; }
svg .one { --tone: var(--one); }
pre { margin: .3rem 0; padding: .7rem .9rem; background: var(--tint); border-radius: 5px; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; tab-size: 4; }
.example { border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem 1rem; margin: 1rem 0; }
.example h4 { margin: 0 0 .5rem; font-size: .9rem; font-weight: 550; color: var(--soft); overflow-wrap: anywhere; }
.example mark { background: none; color: var(--one); border: 1px solid; border-radius: 3px; padding: 0 .5em; }
.tries { display: grid; gap: .2rem .9rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); margin-top: .5rem; }
.tries h5 { margin: .4rem 0 0; font-size: .84rem; font-weight: 600; }
.tries h5 em { font-style: normal; font-weight: 400; color: var(--soft); }
del { color: var(--bad); background: var(--bad-tint); text-decoration: line-through; }
ins { color: var(--good); background: var(--good-tint); text-decoration: underline; text-decoration-thickness: 2px; font-weight: 600; }
details { margin: .6rem 0; } summary { cursor: pointer; font-size: .93rem; color: var(--one); }
@media (max-width: 52rem) {
  .steps li { grid-template-columns: minmax(0, 1fr) auto; gap: 0 .8rem; padding: .28rem .1rem; font-size: .88rem; line-height: 1.35; }
  .steps li.head { display: none; } .steps .who { display: none; } .steps .verdict { text-align: right; }
  .steps .change { grid-column: 1 / -1; font-size: .78rem; line-height: 1.35; color: var(--soft); }
  .steps .change span { display: inline; margin-right: .4em; }
  .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .5rem; } }
@media (min-width: 52.01rem) { .steps li:not(.head) .change span { display: none; } }
@media (max-width: 34rem) { main { padding: .8rem .9rem 3rem; } h1 { font-size: 1.15rem; } th, td { padding: .34rem .5rem; }
  .sub { font-size: .76rem; line-height: 1.35; margin-bottom: .45rem; } .fact { padding: .3rem .5rem .4rem; }
  .fact .value { font-size: .94rem; } .fact .note { font-size: .73rem; line-height: 1.3; }
  .fact dt { font-size: .75rem; line-height: 1.3; } .example { padding: .7rem .7rem .8rem; } svg { height: 17rem; } }
@media print { main { max-width: none; } .example, .finding, figure { break-inside: avoid; } }
"""
