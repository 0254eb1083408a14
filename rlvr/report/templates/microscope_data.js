"use strict";
// The data of the page: columns are arrays in base64, deflated; of wide numbers all low bytes stand first.
const microscopeData = (() => {
  const halves = Float32Array.from({ length: 65536 }, (_, bits) => {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
  });

  async function inflate(text) {
    const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Whole numbers whose bytes stand apart, the lowest of all of them first.
  function whole(bytes, width) {
    const size = bytes.length / width;
    return Uint32Array.from({ length: size }, (_, index) => {
      let value = 0;
      for (let byte = width - 1; byte >= 0; byte--) value = 256 * value + bytes[byte * size + index];
      return value;
    });
  }

  const kinds = {
    half: (bytes) => Float32Array.from(whole(bytes, 2), (bits) => halves[bits]),
    share: (bytes) => Float32Array.from(bytes, (code) => (code / 255) ** 2),
    bits: (bytes) => Uint8Array.from({ length: 8 * bytes.length }, (_, at) => (bytes[at >> 3] >> (at & 7)) & 1),
    byte: (bytes) => bytes,
    short: (bytes) => whole(bytes, 2),
    long: (bytes) => whole(bytes, 4),
  };

  // Scored entropies from the greatest, to tell how many tokens reach a threshold.
  function descending(values) {
    return values.filter((value) => !Number.isNaN(value)).sort().reverse();
  }

  // How many of a descending array are at least `least`.
  function reaching(sorted, least) {
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] >= least) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  async function read() {
    const data = JSON.parse(document.getElementById("data").textContent);
    const columns = {};
    for (const [name, { kind, data: text }] of Object.entries(data.columns)) {
      columns[name] = kinds[kind](await inflate(text));
    }
    const policy = (prefix) => ({
      entropy: columns[`${prefix}entropy`], logprob: columns[`${prefix}logprob`], top: columns[`${prefix}top`],
      share: columns[`${prefix}top_p`], rank: columns[`${prefix}rank`], sorted: descending(columns[`${prefix}entropy`]),
    });
    const policies = data.against === null ? [policy("")] : [policy(""), policy("b_")];
    return { ...data, columns, policies };
  }

  return { read, reaching };
})();
