import { deepEqual, equal } from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { isConfigFile } from '../../../generation/hub/hub-files.js'
import { type HubOptions, hubCache, resolveSettings } from '../../../generation/hub/hub-settings.js'
import { isPath, isRepoName } from '../../../generation/hub/repo-name.js'

describe('the environment', () => {
  it('sets the cache folder as in Python', () => {
    const home = homedir()
    // each second column: huggingface_hub.constants.HF_HUB_CACHE (huggingface_hub 2.4) under the same variables
    const cases: readonly [Readonly<Record<string, string>>, string][] = [
      [{}, `${home}/.cache/huggingface/hub`],
      [{ XDG_CACHE_HOME: '/x' }, '/x/huggingface/hub'],
      [{ XDG_CACHE_HOME: '/x', HF_HOME: '/h' }, '/h/hub'],
      [{ HF_HOME: '~/models' }, `${home}/models/hub`],
      [{ HF_HOME: '$BASE/a', BASE: '/b' }, '/b/a/hub'],
      [{ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old' }, '/old'],
      [{ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old', HF_HUB_CACHE: '/new' }, '/new'],
      [{ HF_HUB_CACHE: `\${BASE}/c`, BASE: '/b' }, '/b/c'],
      [{ HF_HUB_CACHE: '$NONE/c' }, '$NONE/c']
    ]
    for (const [env, path] of cases) equal(hubCache(env), path)
  })

  it('sets the token: the option, then HF_TOKEN, then the file; none if disabled', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'hub-'))
    const HF_TOKEN_PATH = join(folder, 'token')
    await writeFile(HF_TOKEN_PATH, 'hf_file\n')
    await writeFile(join(folder, 'other'), '')
    const cases: readonly [HubOptions, Readonly<Record<string, string>>, string | undefined][] = [
      [{}, { HF_TOKEN_PATH }, 'hf_file'],
      [{}, { HF_HOME: folder }, 'hf_file'],
      [{}, { HF_TOKEN_PATH, HUGGING_FACE_HUB_TOKEN: 'hf_old' }, 'hf_old'],
      [{}, { HF_TOKEN_PATH, HF_TOKEN: ' hf_new\n', HUGGING_FACE_HUB_TOKEN: 'hf_old' }, 'hf_new'],
      [{ token: 'hf_own' }, { HF_TOKEN: 'hf_new' }, 'hf_own'],
      [{ token: false }, { HF_TOKEN: 'hf_new' }, undefined],
      [{}, { HF_TOKEN: 'hf_new', HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' }, undefined],
      [{ token: 'hf_own' }, { HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' }, 'hf_own'],
      [{}, { HF_TOKEN_PATH: join(folder, 'other') }, undefined],
      [{}, { HF_TOKEN_PATH: join(folder, 'none') }, undefined]
    ]
    for (const [options, env, token] of cases) equal((await resolveSettings(options, 'http://hub', env)).token, token)
    await rm(folder, { recursive: true })
  })

  it('sets offline mode and the endpoint', async () => {
    for (const [value, offline] of [
      ['1', true],
      ['true', true],
      ['ON', true],
      ['yes', true],
      ['0', false],
      ['', false]
    ] as const)
      equal((await resolveSettings({}, 'http://hub', { HF_HUB_OFFLINE: value })).offline, offline)
    equal((await resolveSettings({}, 'http://hub', { TRANSFORMERS_OFFLINE: '1' })).offline, true)
    equal((await resolveSettings({ offline: false }, 'http://hub', { HF_HUB_OFFLINE: '1' })).offline, false)
    equal((await resolveSettings({}, 'http://hub', {})).endpoint, 'http://hub')
    equal((await resolveSettings({}, 'http://hub', { HF_ENDPOINT: 'http://mirror/' })).endpoint, 'http://mirror')
    equal(
      (await resolveSettings({ endpoint: 'http://own//' }, 'http://hub', { HF_ENDPOINT: 'http://mirror/' })).endpoint,
      'http://own'
    )
  })
})

describe('a name', () => {
  it('is a repository, a path, or neither', () => {
    const names = ['OpenGVLab/InternVL3-1B-hf', 'a/b_c.d-e', '1/2']
    const paths = ['/a/b', './a', '../a/b', '.', '~/a', 'a/b/c', 'a/', 'C:\\a', 'a\\b']
    const neither = [
      'a',
      '',
      'a/-b',
      'a/b.git',
      'a/b--c',
      'a/b..c',
      'a b/c',
      'ä/b',
      'a/b.',
      `${'a'.repeat(50)}/${'b'.repeat(50)}`
    ]
    deepEqual(names.filter(isRepoName), names)
    deepEqual(paths.filter(isPath), paths)
    deepEqual([...paths, ...neither].filter(isRepoName), [])
    deepEqual([...names, ...neither].filter(isPath), [])
  })

  it('of a file is needed for loading, or not', () => {
    const needed = [
      ...['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'tokenizer.model', 'vocab.json'],
      ...['merges.txt', 'chat_template.jinja', 'chat_template.json', 'processor_config.json', 'preprocessor_config.json'],
      ...['video_preprocessor_config.json', 'special_tokens_map.json', 'added_tokens.json']
    ]
    const not = [
      'README.md',
      'pytorch_model.bin',
      'model.onnx',
      'x.pth',
      'tokenizer.py',
      'runs/config.json',
      'my_config.json',
      'a.gguf'
    ]
    deepEqual([...needed, ...not].filter(isConfigFile), needed)
  })
})
