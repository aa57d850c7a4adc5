import { execFileSync, spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

// `npm run test:container`: runs the steps of the Dockerfile in a fresh folder, where no docker is needed: COPY, RUN, WORKDIR, ENV, then
// the entry point and the health check. Users and images of docker are not tested.

const root = fileURLToPath(new URL('../..', import.meta.url))
const machine = mkdtempSync(join(tmpdir(), 'internvl-container-'))
const port = 8000 + (process.pid % 1000)

/** A path of the container in the fresh folder; the port, too, is one of this machine. */
const moved = (text: string): string =>
  text
    .replace(/(^|[\s=])\/(app|src|models)\b/g, (_, before: string, name: string) => `${before}${machine}/${name}`)
    .replaceAll('8000', String(port))

const instructions = readFileSync(join(root, 'Dockerfile'), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => {
    const [name = '', ...words] = line.split(' ')
    return { name, text: words.join(' ') }
  })

const tracked = (): readonly string[] =>
  execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: root, encoding: 'utf8' })
    .split('\n')
    .filter((file) => file !== '')

let env: NodeJS.ProcessEnv = { ...process.env }
let folder = machine
const steps: Readonly<Record<string, (text: string) => void>> = {
  FROM: () => {
    env = { ...process.env }
  },
  ENV: (text) => {
    env = {
      ...env,
      ...Object.fromEntries(
        moved(text)
          .split(' ')
          .map((pair) => pair.split('=') as [string, string])
      )
    }
  },
  WORKDIR: (text) => {
    folder = moved(text)
    mkdirSync(folder, { recursive: true })
  },
  COPY: (text) => {
    if (text !== '. .') return // folders of the other stage are here already
    for (const file of tracked()) {
      mkdirSync(dirname(join(folder, file)), { recursive: true })
      cpSync(join(root, file), join(folder, file))
    }
  },
  RUN: (text) => {
    const command = moved(text).replace(/ && chown .*/, '')
    process.stderr.write(`$ ${command}\n`)
    execFileSync('sh', ['-c', command], { cwd: folder, env, stdio: ['ignore', 2, 2] })
  }
}

const check = (name: string, holds: boolean): void => {
  if (!holds) throw new Error(`container: ${name} failed`)
  process.stderr.write(`ok: ${name}\n`)
}

const textOf = (name: string): string => instructions.find((instruction) => instruction.name === name)!.text

try {
  for (const { name, text } of instructions) steps[name]?.(text)
  check('runs without root', textOf('USER') === 'node')
  const [command, ...args] = JSON.parse(moved(textOf('ENTRYPOINT'))) as [string, ...string[]]
  const local = args.map((arg) => (arg === '0.0.0.0' ? '127.0.0.1' : arg))
  const server = spawn(command, local, { cwd: folder, env, stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise<number | null>((resolve) => server.on('exit', resolve))
  const ready = new Promise<boolean>((resolve) => {
    server.stdout.once('data', () => resolve(true))
    server.once('exit', () => resolve(false))
  })
  check('the server starts', await ready)
  execFileSync('sh', ['-c', moved(textOf('HEALTHCHECK')).replace(/^.*?CMD /, '')], { env, stdio: 'inherit' })
  check('the health check succeeds', true)
  const url = `http://127.0.0.1:${port}`
  const ask = async (fields: object, content: unknown = 'Is it red?'): Promise<string> => {
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${process.env.INTERNVL_API_KEY ?? ''}` }
    const body = JSON.stringify({ messages: [{ role: 'user', content }], ...fields })
    return (await fetch(`${url}/v1/chat/completions`, { method: 'POST', headers, body })).text()
  }
  const choice = '(yes|no)!'
  check('an answer has the form of a regular expression', /"content":"(yes|no)!"/.test(await ask({ guided_regex: choice })))
  const schema = { type: 'object', properties: { red: { type: 'boolean' } }, required: ['red'] }
  const json = await ask({ response_format: { type: 'json_schema', json_schema: { schema } } })
  check('an answer has the form of a schema', /"content":"\{\\"red\\": ?(true|false)\}"/.test(json))
  const video = readFileSync(join(root, 'properties/processors/videos/b-frames.mp4')).toString('base64')
  const part = { type: 'video_url', video_url: { url: `data:video/mp4;base64,${video}` } }
  const answers = await ask({ num_frames: 2, max_tokens: 2 }, [part, { type: 'text', text: 'Is it red?' }])
  check('a video is decoded', /"image_tokens":32/.test(answers))
  const page = await fetch(url)
  check('the page is there', page.status === 200 && /<title>/.test(await page.text()))
  server.kill('SIGTERM')
  check('SIGTERM ends the server with 0', (await ended) === 0)
} finally {
  rmSync(machine, { recursive: true, force: true })
}
