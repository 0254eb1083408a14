// What the page shows of one token, and elements whose texts are only ever text.
const microscopeView = (() => {
  function element(tag, classes, text, ...children) {
    const node = document.createElement(tag);
    if (classes) node.className = classes;
    if (text !== undefined && text !== null) node.textContent = text;
    node.append(...children);
    return node;
  }

  const absent = "not recorded";
  const number = (value, digits = 3) =>
    value === undefined || value === null || Number.isNaN(value) ? absent : value.toFixed(digits);
  const signed = (value) => (value > 0 ? "+" : "") + number(value);
  const chance = (logprob) => Math.exp(Math.min(logprob, 0));
  const percent = (share) => `${share >= 0.0995 ? Math.round(100 * share) : (100 * share).toPrecision(1)} %`;
  const plain = (text) => text.replace(/\u21b5\n/g, "\n").replace(/\u21e5\t/g, "\t");

  // [text, probability, whether it was sampled] of the likeliest tokens at a place, by one policy.
  function alternatives(data, policy, at) {
    if (!policy.top) return [];
    const found = [];
    for (let rank = 0; rank < data.top; rank++) {
      const share = policy.share[at * data.top + rank];
      if (!share) continue;
      const sampled = policy.rank[at] === rank;
      const p = sampled && !Number.isNaN(policy.logprob[at]) ? chance(policy.logprob[at]) : share;
      found.push([data.texts[policy.top[at * data.top + rank]], p, sampled]);
    }
    return found;
  }

  function table(rows, caption) {
    const body = element("tbody");
    for (const [text, p, sampled] of rows) {
      const bar = element("div");
      bar.style.width = `${Math.round(100 * p)}%`;
      body.append(element("tr", "", null,
        Object.assign(element("th", "", text), { scope: "row" }),
        element("td", "", percent(p)), element("td", "share", null, bar), element("td", "", sampled ? "sampled" : "")));
    }
    return element("table", "", null, element("caption", "", caption), body);
  }

  // [label, value, value of the other policy] of a token.
  function facts(data, completion, at, forks) {
    const { columns, policies } = data;
    const each = (make) => policies.map(make);
    const column = (name, make) => (columns[name] && !Number.isNaN(columns[name][at]) ? make(columns[name][at]) : absent);
    const scored = policies.map((policy) => !Number.isNaN(policy.entropy[at]));
    const lines = [
      ["entropy", ...each((policy, side) => (scored[side] ? `${number(policy.entropy[at])} nats` : "not scored"))],
      ["probability", ...each((policy, side) => (scored[side] ? number(chance(policy.logprob[at])) : "not scored"))],
    ];
    if (policies.length > 1) {
      const difference = policies[1].entropy[at] - policies[0].entropy[at];
      lines.push(["difference", Number.isNaN(difference) ? "not scored" : `${signed(difference)} nats`]);
    }
    lines.push(
      ["threshold", ...forks.map((fork, side) => (fork ? "a fork" : scored[side] ? "below" : "not scored"))],
      ["run", columns.kept[at] ? "kept" : "dropped"],
      ["advantage", column("advantage", signed)],
      ["KTAE value", column("ktae", signed)],
      ["importance ratio", column("log_ratio", (value) => number(Math.exp(value), 4))],
    );
    return lines;
  }

  function details(data, completion, at, forks) {
    const place = `token ${at - completion.start + 1} of ${completion.length}, completion ${completion.row} of step ${completion.step}`;
    const list = element("dl");
    if (data.policies.length > 1) list.append(element("dt", "", ""), element("dd", "", "A"), element("dd", "", "B"));
    for (const [label, ...values] of facts(data, completion, at, forks)) {
      list.append(element("dt", "", label));
      for (const value of values) list.append(element("dd", values.length === 1 ? "wide" : "", value));
    }
    const nodes = [
      element("p", "piece", data.texts[data.columns.text[at]]), element("p", "note", place), list,
    ];
    const likeliest = data.policies.map((policy, side) => {
      const name = data.policies.length > 1 ? `Likeliest tokens, ${"AB"[side]}` : "Likeliest tokens";
      const who = completion.top_by[side];
      if (who === null || who === undefined) return element("p", "note", `${name}: ${absent}.`);
      return table(alternatives(data, policy, at), `${name}, by ${who}`);
    });
    nodes.push(element("div", likeliest.length > 1 ? "pair" : "", null, ...likeliest));
    return nodes;
  }

  // The same in one sentence, for those who hear it.
  function sentence(data, completion, at, forks) {
    const said = facts(data, completion, at, forks).map(([label, ...values]) => `${label} ${values.join(" and ")}`);
    const others = alternatives(data, data.policies[0], at).slice(0, 3);
    const likely = others.map(([text, p]) => `${JSON.stringify(text)} ${percent(p)}`).join(", ");
    return `${JSON.stringify(data.texts[data.columns.text[at]])}: ${said.join(", ")}` +
      (likely ? `, likeliest ${likely}` : "");
  }

  return { element, number, percent, plain, details, sentence };
})();
