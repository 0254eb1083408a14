microscopeData.read().then((data) => {
  const { element, number, percent, plain, details, sentence } = microscopeView;
  const { columns, policies, texts, completions } = data;
  const byId = (id) => document.getElementById(id);
  const greatest = Math.max(0.01, policies[0].sorted[0] || 0);
  const marks = { correct: "✓", wrong: "✗", ungraded: "–" };
  const LISTED = 200;
  // `cuts`: the entropy from which on a token is a fork, of each policy; `wanted`: the text that is highlighted.
  const state = { verdict: "", cuts: [0, 0], wanted: -1, focused: null, colour: "all" };
  const spans = new WeakMap(); // token element -> { at, side }
  const cards = completions.map(makeCard);
  let shown = [];

  // ---- tokens
  const isFork = (at, side) => policies[side].entropy[at] >= state.cuts[side];
  const forksAt = (at) => policies.map((_, side) => isFork(at, side));

  function level(nats) {
    let found = 0;
    while (found < data.edges.length && nats >= data.edges[found]) found++;
    return found;
  }

  function classes(at, side) {
    const fork = isFork(at, side);
    const scored = !Number.isNaN(policies[side].entropy[at]);
    let colour = scored ? `e${level(policies[side].entropy[at])}` : "";
    if (state.colour === "forks" && !fork) colour = "";
    if (state.colour === "difference") {
      const difference = policies[1].entropy[at] - policies[0].entropy[at];
      colour = Number.isNaN(difference) ? "" : `${difference > 0 ? "e" : "c"}${level(Math.abs(difference))}`;
    }
    const only = policies.length > 1 && fork && !isFork(at, 1 - side);
    return `t ${colour}${columns.kept[at] ? " k" : ""}${fork ? " f" : ""}${only ? " only" : ""}` +
      `${columns.text[at] === state.wanted ? " hit" : ""}`;
  }

  function makeLine(completion, side) {
    const line = element("div", "tokens");
    line.setAttribute("role", "listbox");
    line.setAttribute("aria-orientation", "horizontal");
    const name = policies.length > 1 ? `, ${"AB"[side]}` : "";
    line.setAttribute("aria-label", `Tokens of completion ${completion.row} of step ${completion.step}${name}`);
    for (let at = completion.start; at < completion.start + completion.length; at++) {
      const span = element("span", classes(at, side), texts[columns.text[at]]);
      span.setAttribute("role", "option");
      span.tabIndex = at === completion.start ? 0 : -1;
      spans.set(span, { at, side });
      line.append(span);
    }
    return line;
  }

  function recolour() {
    for (const span of document.querySelectorAll("#completions .t")) {
      const { at, side } = spans.get(span);
      span.className = classes(at, side) + (span.classList.contains("current") ? " current" : "");
    }
  }

  // ---- cards: header at once, tokens while they are near the window
  function makeCard(completion) {
    const name = `Completion ${completion.row} of step ${completion.step}, ${completion.verdict}`;
    const card = element("article", `completion ${completion.verdict}`);
    card.setAttribute("aria-label", name);
    const meta = element("p", "meta", null,
      element("strong", "verdict", `${marks[completion.verdict]} ${completion.verdict}`));
    const rewards = Object.entries(completion.rewards).map(([label, value]) => `${label} ${number(value, 2)}`);
    for (const text of [
      completion.status === completion.verdict ? "" : completion.status,
      `step ${completion.step}, prompt ${completion.group}, completion ${completion.row}`,
      `reward ${number(completion.reward, 2)}${rewards.length > 1 ? ` (${rewards.join(", ")})` : ""}`,
      `${completion.kept} of ${completion.length} tokens kept`,
      completion.truncated ? "cut at the limit" : "",
    ]) {
      if (text) meta.append(" ", element("span", "", text));
    }
    const asked = element("dl", "asked");
    for (const [label, text] of [["prompt", data.prompts[completion.problem]], ["gold", completion.gold || "not recorded"]]) {
      const value = element("dd", "", text);
      if (text.length > 600) value.tabIndex = 0; // it scrolls
      asked.append(element("div", "", null, element("dt", "", label), value));
    }
    card.append(meta, asked, element("div", "lines"));
    return card;
  }

  function render(index) {
    const completion = completions[index], lines = cards[index].lastElementChild;
    if (lines.childElementCount) return;
    lines.style.minHeight = "";
    if (!completion.length) {
      lines.append(element("p", "note", "No token was sampled."));
      return;
    }
    policies.forEach((_, side) => {
      const by = completion.by[side] ?? "nobody scored it";
      const heading = policies.length > 1 ? [element("h4", "", `${"AB"[side]}: ${by}`)] : [];
      lines.append(element("div", "", null, ...heading, makeLine(completion, side)));
    });
  }

  function forget(index) {
    const lines = cards[index].lastElementChild;
    if (!lines.childElementCount || lines.contains(document.activeElement)) return;
    lines.style.minHeight = `${lines.offsetHeight}px`;
    lines.replaceChildren();
  }

  const places = new Map(cards.map((card, index) => [card, index]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) (entry.isIntersecting ? render : forget)(places.get(entry.target));
  }, { rootMargin: "1200px 0px" });

  // ---- filters
  const searched = completions.map(() => null);
  function words(index) {
    if (searched[index] === null) {
      const completion = completions[index], found = [];
      for (let at = completion.start; at < completion.start + completion.length; at++) found.push(texts[columns.text[at]]);
      const all = [data.prompts[completion.problem], completion.gold, completion.status, plain(found.join(""))];
      searched[index] = all.join("\n").toLowerCase();
    }
    return searched[index];
  }

  function filter() {
    const step = byId("step").value, problem = byId("problem").value, text = byId("text").value.toLowerCase();
    shown = completions.map((_, index) => index).filter((index) => {
      const completion = completions[index];
      return (!step || String(completion.step) === step) && (!problem || String(completion.problem) === problem) &&
        (!state.verdict || completion.verdict === state.verdict) && (!text || words(index).includes(text));
    });
    const wanted = new Set(shown);
    cards.forEach((card, index) => { card.hidden = !wanted.has(index); });
    for (const button of document.querySelectorAll("[data-verdict]")) {
      button.setAttribute("aria-pressed", String(button.dataset.verdict === state.verdict));
    }
    byId("count").textContent = `${shown.length} of ${completions.length} completions shown`;
    count();
  }

  // ---- threshold
  function cut(nats) {
    const { sorted } = policies[0];
    state.cuts[0] = nats;
    if (policies.length > 1) { // as large a share of the other policy's tokens
      const other = policies[1].sorted, many = microscopeData.reaching(sorted, nats);
      const same = Math.round((many / Math.max(1, sorted.length)) * other.length);
      state.cuts[1] = same ? other[same - 1] : Infinity;
    }
    byId("nats").value = String(Number(nats.toFixed(4)));
    byId("slider").value = String(Math.round(1000 * Math.sqrt(nats / greatest)));
    recolour();
    count();
  }

  function topShare(share) {
    const { sorted } = policies[0];
    if (sorted.length) cut(sorted[Math.min(sorted.length, Math.ceil(share * sorted.length)) - 1]);
    else cut(0);
  }

  // ---- the list of forks, over the shown completions
  function count() {
    const whose = byId("whose")?.value ?? "a";
    const side = whose.endsWith("b") ? 1 : 0, only = whose.startsWith("only");
    const counts = new Uint32Array(texts.length), kept = new Uint32Array(texts.length), sums = new Float64Array(texts.length);
    let forks = 0, scored = 0;
    for (const index of shown) {
      const { start, length } = completions[index];
      for (let at = start; at < start + length; at++) {
        const nats = policies[side].entropy[at];
        if (Number.isNaN(nats)) continue;
        scored++;
        if (!isFork(at, side) || (only && isFork(at, 1 - side))) continue;
        const text = columns.text[at];
        forks++;
        counts[text]++;
        sums[text] += nats;
        kept[text] += columns.kept[at];
      }
    }
    const all = policies[0].sorted;
    const percentile = all.length ? 100 * (1 - microscopeData.reaching(all, state.cuts[0]) / all.length) : 0;
    const share = `${forks} forks, ${scored ? ((100 * forks) / scored).toFixed(1) : "0.0"} % of ${scored} shown tokens`;
    byId("share").textContent = `${share}; percentile ${percentile.toFixed(1)} of the page`;
    byId("slider").setAttribute("aria-valuetext", `${number(state.cuts[0])} nats, percentile ${percentile.toFixed(1)}`);
    list(counts, sums, kept);
  }

  function list(counts, sums, kept) {
    const mean = (text) => sums[text] / counts[text];
    const found = [...counts.keys()].filter((text) => counts[text]);
    const byEntropy = byId("order").value === "entropy";
    found.sort((a, b) => (byEntropy ? mean(b) - mean(a) : counts[b] - counts[a] || mean(b) - mean(a)) || a - b);
    const rows = found.slice(0, LISTED).map((text) => {
      const button = element("button", "", texts[text]);
      button.type = "button";
      button.setAttribute("aria-pressed", String(text === state.wanted));
      button.addEventListener("click", () => want(text === state.wanted ? -1 : text));
      button.dataset.token = String(text);
      return element("tr", "", null,
        Object.assign(element("th", "", null, button), { scope: "row" }), element("td", "", String(counts[text])),
        element("td", "", number(mean(text))), element("td", "", percent(kept[text] / counts[text])));
    });
    const held = document.activeElement?.dataset?.token;
    byId("list").replaceChildren(...rows);
    if (held) byId("list").querySelector(`[data-token="${held}"]`)?.focus();
    const left = found.length - rows.length;
    byId("more").textContent = left > 0 ? `${left} more are not listed.` : found.length ? "" : "No token reaches the threshold.";
  }

  function want(text) {
    state.wanted = text;
    byId("previous").disabled = byId("next").disabled = text < 0;
    for (const button of byId("list").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.token) === text));
    }
    recolour();
  }

  // ---- moving
  const completionOf = (at) => completions.findLastIndex((completion) => completion.start <= at && completion.length);

  function point(at, spoken) {
    for (const span of document.querySelectorAll("#completions .current")) span.classList.remove("current");
    const completion = completions[completionOf(at)];
    for (const line of cards[completionOf(at)].querySelectorAll(".tokens")) {
      line.children[at - completion.start]?.classList.add("current");
    }
    byId("numbers").replaceChildren(...details(data, completion, at, forksAt(at)));
    if (spoken) byId("spoken").textContent = sentence(data, completion, at, forksAt(at));
  }

  function go(at, side = 0) {
    const index = completionOf(at);
    render(index);
    const line = cards[index].querySelectorAll(".tokens")[side];
    const span = line.children[at - completions[index].start];
    line.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    span.tabIndex = 0;
    span.focus();
    cards[index].scrollIntoView({ block: "nearest" });
    span.scrollIntoView({ block: "nearest" });
  }

  // The first token of the shown completions after `at` (or before it) that fits; from the end it goes on at the start.
  function seek(at, forward, fits) {
    const all = shown.flatMap((index) => {
      const { start, length } = completions[index];
      return Array.from({ length }, (_, offset) => start + offset);
    }).filter(fits);
    if (!all.length) return null;
    return forward ? (all.find((one) => one > at) ?? all[0]) : (all.findLast((one) => one < at) ?? all.at(-1));
  }

  function beside(span, down) {
    const { left } = span.getBoundingClientRect();
    let best = null, line = null;
    for (let next = span; (next = down ? next.nextElementSibling : next.previousElementSibling); ) {
      if (next.offsetTop === span.offsetTop) continue;
      line ??= next.offsetTop;
      if (next.offsetTop !== line) break;
      const gap = Math.abs(next.getBoundingClientRect().left - left);
      if (best === null || gap < best.gap) best = { gap, next };
    }
    return best?.next;
  }

  function neighbour(at, forward) {
    const here = shown.indexOf(completionOf(at));
    const order = forward ? shown.slice(here + 1) : shown.slice(0, Math.max(0, here)).reverse();
    const found = order.find((index) => completions[index].length);
    return found === undefined ? null : completions[found].start;
  }

  function keyed(event) {
    const place = spans.get(event.target);
    if (!place || event.ctrlKey || event.altKey || event.metaKey) return;
    const { at, side } = place, { start, length } = completions[completionOf(at)];
    const aim = (span) => (span ? spans.get(span).at : at);
    const moves = {
      ArrowRight: () => Math.min(at + 1, start + length - 1),
      ArrowLeft: () => Math.max(at - 1, start),
      ArrowDown: () => aim(beside(event.target, true)),
      ArrowUp: () => aim(beside(event.target, false)),
      Home: () => start,
      End: () => start + length - 1,
      PageDown: () => neighbour(at, true),
      PageUp: () => neighbour(at, false),
      f: () => seek(at, true, (one) => isFork(one, side)),
      F: () => seek(at, false, (one) => isFork(one, side)),
    };
    if (event.key === "Escape") want(-1);
    if (!Object.hasOwn(moves, event.key)) return;
    event.preventDefault();
    const next = moves[event.key]();
    if (next !== null) go(next, side);
  }

  // ---- wiring
  const box = byId("completions");
  box.addEventListener("mouseover", (event) => { if (spans.has(event.target)) point(spans.get(event.target).at, false); });
  box.addEventListener("mouseleave", () => { if (state.focused !== null) point(state.focused, false); });
  box.addEventListener("click", (event) => { const place = spans.get(event.target); if (place) go(place.at, place.side); });
  box.addEventListener("focusin", (event) => {
    if (!spans.has(event.target)) return;
    state.focused = spans.get(event.target).at;
    point(state.focused, true);
  });
  box.addEventListener("keydown", keyed);
  for (const button of document.querySelectorAll("[data-verdict]")) {
    button.addEventListener("click", () => { state.verdict = button.dataset.verdict; filter(); });
  }
  for (const id of ["step", "problem"]) byId(id).addEventListener("change", filter);
  byId("text").addEventListener("input", filter);
  for (const id of ["order", "whose"]) byId(id)?.addEventListener("change", count);
  byId("slider").addEventListener("input", () => cut(greatest * (Number(byId("slider").value) / 1000) ** 2));
  byId("nats").addEventListener("change", () => cut(Math.max(0, Number(byId("nats").value) || 0)));
  byId("top").addEventListener("click", () => topShare(0.2));
  byId("colour").addEventListener("change", () => {
    state.colour = byId("colour").value;
    if (byId("difference")) byId("difference").hidden = state.colour !== "difference";
    recolour();
  });
  for (const [id, forward] of [["next", true], ["previous", false]]) {
    byId(id).addEventListener("click", () => {
      const found = seek(state.focused ?? (forward ? -1 : Infinity), forward, (at) => columns.text[at] === state.wanted);
      if (found !== null) { go(found); byId(id).focus(); }
    });
  }
  for (const step of new Set(completions.map((completion) => completion.step))) {
    byId("step").append(new Option(String(step), String(step)));
  }
  data.prompts.forEach((prompt, index) => byId("problem").append(new Option(prompt.slice(0, 60), String(index))));
  box.append(...cards);
  topShare(0.2);
  filter();
  for (const card of cards) watcher.observe(card);
  document.documentElement.dataset.ready = "true";
}).catch((error) => {
  document.getElementById("count").textContent = `This page could not be drawn: ${error.message}`;
  throw error;
});
