// A client of the official TypeScript SDK: calls a server as it is told, and prints what comes of each call.
//   node client.mjs legacy|auto CALLS URL | COMMAND [ARGUMENTS...]
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

const [mode, calls, target, ...args] = process.argv.slice(2);
const client = new Client(
  { name: 'typescript', version: '1' },
  { capabilities: { elicitation: {}, sampling: {} }, versionNegotiation: { mode } },
);
client.setRequestHandler('elicitation/create', async () => ({ action: 'accept', content: {} }));
client.setRequestHandler('sampling/createMessage', async () => ({ role: 'assistant', model: 'm', content: { type: 'text', text: 'sampled' } }));
const transport = target.startsWith('http://')
  ? new StreamableHTTPClientTransport(new URL(target))
  : new StdioClientTransport({ command: target, args, env: process.env, stderr: 'ignore' });
await client.connect(transport);
console.log(JSON.stringify({ server: client.getServerVersion(), version: client.getNegotiatedProtocolVersion?.() }));
const methods = {
  'tools/list': 'listTools', 'prompts/list': 'listPrompts', 'resources/list': 'listResources', 'resources/templates/list': 'listResourceTemplates',
  'tools/call': 'callTool', 'prompts/get': 'getPrompt', 'resources/read': 'readResource',
};
for (const { method, params } of JSON.parse(calls)) {
  try {
    console.log(method, JSON.stringify(await client[methods[method]](params)));
  } catch (error) {
    console.log(method, 'fails:', error.code, error.message);
  }
}
await transport.terminateSession?.();
await client.close();
process.exit(0);
