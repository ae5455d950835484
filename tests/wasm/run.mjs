// Runs the module that Cargo.toml beside this builds:
//
//   node run.mjs MODULE                       compares its kernels with the portable ones
//   node run.mjs MODULE IMAGE PAGE_SIZE IDS   prints the checksum of an image's logits, with the
//                                             portable kernels and with those of SIMD128
import { readFileSync } from "node:fs";

const [module, image, pageSize, ids] = process.argv.slice(2);
const { instance } = await WebAssembly.instantiate(readFileSync(module), {});
const { memory, input, tokens, check, logits_checksum } = instance.exports;

if (image === undefined) {
  const difference = check();
  if (difference !== 0) {
    console.error(`SIMD128 kernels: comparison ${difference} differs`);
    process.exit(1);
  }
  console.log("SIMD128 kernels: ok");
} else {
  const bytes = readFileSync(image);
  const numbers = ids.split(",").map(Number);
  new Uint8Array(memory.buffer).set(bytes, input());
  new Uint32Array(memory.buffer).set(numbers, tokens() / 4);
  const checksum = (simd) =>
    logits_checksum(bytes.length, Number(pageSize), numbers.length, simd) >>> 0;
  console.log(JSON.stringify({ portable: checksum(false), simd128: checksum(true) }));
}
