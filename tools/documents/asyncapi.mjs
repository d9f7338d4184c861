// Parses an AsyncAPI document. Everything but the hint that a later version of AsyncAPI exists is a fault.
import { Parser, fromFile } from '@asyncapi/parser';

const path = process.argv[2];
const { document, diagnostics } = await fromFile(new Parser(), path).parse();
const faults = diagnostics.filter((d) => d.code !== 'asyncapi-latest-version');
for (const d of faults) {
  console.error(`${path}: ${d.path.join('.')}: ${d.message} (${d.code})`);
}
if (!document || faults.length > 0) {
  process.exit(1);
}
console.log(`${path}: valid`);
