/* SPDX-License-Identifier: MIT
 *
 * report.html: what is around the sections: the head with its style, the words, the end.
 */
#include "command/report/page.h"

#include <stdio.h>
#include <time.h>

#include "core/base/clock.h"

/*
 * Colours have a contrast of at least 4.5 on their ground in both schemes. Only what is here is
 * used: the policy forbids everything else, also to what a name in the log might smuggle in.
 */
static const char style[] =
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#57606a;--line:#d0d7de;"
    "--panel:#f6f8fa;--link:#0a4fa3;--ok:#11683a;--okbg:#e6f4ea;--bad:#a40e26;--badbg:#ffebe9;"
    "--warn:#7a4d00;--warnbg:#fff4d6;--note:#4b55a5;--h1:#b3d3f3;--h2:#82b6ea;--h3:#4f90d8;"
    "--h4:#2a6fbb;--h5:#0a3f7f;--empty:#f3f5f7}\n"
    "@media (prefers-color-scheme:dark){:root{--bg:#0f1419;--fg:#e3e8ee;--soft:#a0aab5;"
    "--line:#333d47;--panel:#171e25;--link:#8abaff;--ok:#7fdba0;--okbg:#10291a;--bad:#ff9c96;"
    "--badbg:#3a1517;--warn:#f2c464;--warnbg:#33270c;--note:#b3baff;--h1:#1d4468;--h2:#245f94;"
    "--h3:#3180c6;--h4:#5ba3e6;--h5:#b5dbff;--empty:#161d24}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;max-width:80rem;padding:1rem 1.25rem 4rem;background:var(--bg);"
    "color:var(--fg);font:1rem/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,sans-serif}\n"
    "h1{font-size:1.6rem;line-height:1.25;margin:1rem 0 .25rem}\n"
    "h2{font-size:1.2rem;margin:0 0 .25rem;line-height:1.3}\n"
    "section{margin:2.5rem 0 0}\n"
    "a{color:var(--link)}\n"
    "nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1rem;list-style:none;padding:0;margin:.75rem "
    "0}\n"
    ".about,.legend,.meta{color:var(--soft);margin:.1rem 0 .75rem;max-width:48rem}\n"
    "code{font:.875em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;"
    "overflow-wrap:anywhere}\n"
    ".verdict{padding:.75rem 1rem;border-left:.3rem solid;border-radius:.25rem;margin:.5rem 0}\n"
    ".verdict.ok{color:var(--ok);background:var(--okbg)}\n"
    ".verdict.bad{color:var(--bad);background:var(--badbg)}\n"
    ".verdict.warn{color:var(--warn);background:var(--warnbg)}\n"
    ".verdict a{color:inherit}\n"
    ".answers{display:grid;grid-template-columns:minmax(10rem,16rem) 1fr;gap:.75rem 1.5rem;"
    "margin:1rem 0;overflow-wrap:anywhere}\n"
    ".answers dt{font-weight:600}.answers dd{margin:0}.answers ul{margin:0;padding-left:1.1rem}\n"
    ".advice li,.findings li{margin:0 0 .75rem;max-width:52rem;overflow-wrap:anywhere}"
    ".advice ul{margin:.25rem 0;padding-left:1.1rem}.advice li li{margin:0 0 .25rem}\n"
    "figure{margin:.75rem 0 .25rem}figcaption{font-size:.875rem;font-weight:600;margin:0 0 "
    ".25rem}\n"
    ".strip,.axis{display:grid;grid-template-columns:14rem minmax(0,1fr) 6.5rem;gap:0 .75rem;"
    "align-items:center;margin:1px 0}\n"
    ".strip .name{overflow-wrap:anywhere;font-size:.875rem;line-height:1.2}\n"
    ".strip .num{font-size:.875rem;text-align:right;font-variant-numeric:tabular-nums}\n"
    ".strip svg{width:100%;height:1.25rem;background:var(--empty);display:block}\n"
    ".strip.bars svg{height:2.5rem}.strip.bars rect{fill:var(--h4)}\n"
    ".strip.lane svg{height:1rem}.strip.told .name{font-weight:600}\n"
    ".axis .times{display:flex;justify-content:space-between;font-size:.8125rem;"
    "color:var(--soft);font-variant-numeric:tabular-nums}\n"
    ".h1{fill:var(--h1)}.h2{fill:var(--h2)}.h3{fill:var(--h3)}.h4{fill:var(--h4)}"
    ".h5{fill:var(--h5)}\n"
    ".half{fill:var(--fg)}rect.ok{fill:var(--ok)}rect.bad{fill:var(--bad)}"
    "rect.warn{fill:var(--warn)}rect.note{fill:var(--note)}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:.25rem .5rem;align-items:center;font-size:.875rem}"
    ".legend svg{width:6rem;height:.8rem}\n"
    ".scroll{overflow-x:auto;margin:.5rem 0 1rem;border:1px solid var(--line);"
    "border-radius:.375rem}\n"
    "table{border-collapse:collapse;width:100%;font-size:.875rem}\n"
    "caption{text-align:left;font-weight:600;padding:.5rem .75rem;background:var(--panel)}\n"
    "caption span{position:sticky;left:.75rem;display:inline-block;max-width:calc(100vw - "
    "4rem)}\n"
    "th,td{text-align:left;padding:.35rem .6rem;border-top:1px solid var(--line);"
    "vertical-align:top;font-weight:400}\n"
    "thead th{font-weight:600;background:var(--panel)}\n"
    "tbody th{font-weight:500}td code,th code{min-width:14rem;display:inline-block}\n"
    ".n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\n"
    "td time,.s{white-space:nowrap}.w{min-width:22rem}\n"
    "details{margin:.5rem 0}summary{cursor:pointer;color:var(--link)}\n"
    ":focus-visible{outline:2px solid var(--link);outline-offset:2px}\n"
    ".sr{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);"
    "white-space:nowrap}\n"
    ".words dt{font-weight:600;margin-top:.5rem}.words dd{margin:0;max-width:48rem}\n"
    "@media (max-width:42rem){body{padding:.5rem .75rem 3rem}"
    ".answers{grid-template-columns:1fr;gap:.15rem 0}.answers dd{margin-bottom:.75rem}"
    ".strip{grid-template-columns:1fr auto;margin:.35rem 0}.strip svg{grid-column:1/-1;"
    "grid-row:2}.axis{grid-template-columns:0 1fr 0;gap:0}}\n"
    "@media print{:root{color-scheme:light}body{max-width:none;font-size:10pt}nav{display:none}"
    "section{break-inside:auto;margin-top:1.5rem}h2,.about,figcaption,summary{break-after:avoid}."
    "strip,tr,dt,dd,li{break-inside:avoid}"
    ".scroll{overflow:visible;border:0}table{font-size:7.5pt}th,td{padding:.2rem .35rem}"
    "td time,.s{white-space:normal}.w,td code,th code{min-width:0}caption "
    "span{position:static}svg,.verdict,thead th,caption{print-color-adjust:exact;"
    "-webkit-print-color-adjust:exact}details::details-content{display:block;"
    "content-visibility:visible}}\n";

static void put_contents(struct page *p)
{
	const struct {
		const char *id, *title;
		bool left_out;
	} sections[] = {
	    {"answers", "In short", false},
	    {"advice", "What to change", false},
	    {"files", "Files", false},
	    {"time", "Time line", false},
	    {"latency", "Durations", false},
	    {"growth", "Growth", false},
	    {"transactions", "Transactions", false},
	    {"callers", "Lines of the program", !page_has_callers(p)},
	    {"snapshots", "Snapshots", false},
	    {"processes", "Processes", false},
	    {"findings", "As it is now", !p->checked},
	    {"words", "Words", false},
	};
	size_t i;

	page_put(p, "<nav aria-label=\"Sections\"><ul>\n");
	for (i = 0; i < sizeof(sections) / sizeof(sections[0]); i++)
		if (!sections[i].left_out)
			page_put(p, "<li><a href=\"#%T\">%T</a></li>\n", sections[i].id,
				 sections[i].title);
	page_put(p, "</ul></nav>\n");
}

void page_head(struct page *p)
{
	const struct digest *d = p->d;

	page_put(p,
		 "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
		 "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
		 "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
		 "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
		 "<meta name=\"generator\" content=\"chromashim " CHROMASHIM_VERSION "\">\n"
		 "<title>%T: what happened</title>\n<style>",
		 p->in->data.dir);
	fputs(style, p->out);
	page_put(
	    p,
	    "</style></head>\n<body><main>\n<h1>What happened in <code>%T</code></h1>\n"
	    "<p class=\"meta\">From %t to %t (%D), by <span data-n=\"%d\">%N</span> entries of "
	    "the log. Made %t by chromashim " CHROMASHIM_VERSION ".",
	    p->in->data.dir, d->first, d->last, d->last - d->first, d->entries, d->entries,
	    clock_read(CLOCK_REALTIME));
	if (p->in->calls_from > d->first)
		page_put(p,
			 " Single calls are in the log from %t on only; what is older is told by "
			 "its transactions.",
			 p->in->calls_from);
	if (p->in->lost || p->in->damaged || p->in->unreadable)
		page_put(p,
			 " Of the log itself %N entries were lost, %N are damaged and %N files "
			 "cannot be read.",
			 p->in->lost, p->in->damaged, p->in->unreadable);
	page_put(p, "</p>\n");
	put_contents(p);
}

void page_words(struct page *p)
{
	static const struct {
		const char *word, *means;
	} words[] = {
	    {"Acknowledged", "The program was told that its change is kept: from then on it must "
			     "not be lost."},
	    {"Calls: open, pwrite, unlink, \xe2\x80\xa6",
	     "What the program asks of the system, one by one: open and close a file, write and "
	     "pwrite put bytes into it, unlink removes it, lock keeps others out of it."},
	    {"Collection", "A set of records that are searched together, like a table."},
	    {"Index (persist)", "A collection\xe2\x80\x99s vectors in the form in which they are "
				"searched; a persist is when Chroma writes it to its files."},
	    {"Latency, 99 of 100", "How long something took; 99 of 100 were at least this fast, so "
				   "one in a hundred was slower."},
	    {"Process", "A running program, with its number; here the backend, and whatever else "
			"had the directory open."},
	    {"Queue", "The table embeddings_queue: every change is written there first, and stays "
		      "until the index has it. So an index write that is cut off loses nothing."},
	    {"Record", "One entry of a collection: an id, a vector, a document, metadata."},
	    {"Refused", "chromashim made a call fail that would have ruined data: a second "
			"writer, a write without room, a removal of what is in use."},
	    {"Snapshot", "The whole directory as it was at one moment, kept in the store."},
	    {"Store", "The directory .chromashim, where the log and the snapshots are."},
	    {"Sync", "Waiting until the disk really has what was written. It is what makes data "
		     "survive a power cut, and mostly what takes the time."},
	    {"Transaction", "A group of changes of the database that counts wholly or not at all."},
	    {"Upgrade (migration)", "A newer Chroma changes the tables when it first opens the "
				    "directory; older ones may not open it any more."},
	    {"Vacuum", "The database is written anew without the pages that hold nothing."},
	    {"Verified", "Of a snapshot: it was restored to a scratch place, opened, and found "
			 "good."},
	};
	size_t i;

	page_section(p, "words", "Words", "What the words here mean.");
	page_put(p, "<dl class=\"words\">\n");
	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		page_put(p, "<dt>%T</dt><dd>%T</dd>\n", words[i].word, words[i].means);
	page_put(p, "</dl>\n");
	page_section_end(p);
}

void page_foot(struct page *p)
{
	page_put(p, "</main></body></html>\n");
}
