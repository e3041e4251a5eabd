// A program with the generated client: uploads a volume, and writes its mask. node main.js URL VOLUME MASK
import { openAsBlob, writeFileSync } from "node:fs";
import { client } from "./client/client.gen";
import { models, segment } from "./client/sdk.gen";

async function main([url, volume, mask]: string[]): Promise<void> {
  client.setConfig({ baseUrl: url });
  const listed = await models({ throwOnError: true });
  const file = new File([await openAsBlob(volume)], "scan.nii.gz");
  const body = { volume: [file], model: [listed.data.default ?? ""] };
  // the type is that of reports, which Accept can ask for; a mask is a blob
  const answer = await segment({ body, parseAs: "blob", throwOnError: true });
  writeFileSync(mask, new Uint8Array(await (answer.data as unknown as Blob).arrayBuffer()));

  const refused = await segment({ body: { volume: [new File(["no volume"], "scan.nii")] } });
  if (!refused.error?.detail.includes("expected")) throw new Error("it was not refused");
}

void main(process.argv.slice(2));
