"""Instruction-like text in several languages: what prompt injections, pasted chats and chat templates leave.

A label that reads "ignore all previous instructions" may be a right transcription of what the image shows;
it may also teach the model to obey images. Patterns find it, a person decides.
"""

# Alternatives in a dozen scripts are read better on one line each.
# ruff: noqa: E501, RUF001

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["override", "persona", "prompt_leak", "role_marker", "chat_markup"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Instruction:
    """Characters `start` to `end` of a text look like this kind of instruction."""

    kind: Kind
    start: int
    end: int


# Verbs of forgetting, near to a word for what came before, near to a word for what is to be forgotten.
_OVERRIDE = (
    r"\b(?:ignore|disregard|forget|override|overlook|discard|bypass)\b.{0,24}"
    r"\b(?:previous|prior|above|earlier|preceding|all|any|your|the|these|those|foregoing)\b.{0,24}"
    r"\b(?:instructions?|prompts?|directions?|guidelines?|(?:safety|system) rules?|system messages?|orders you)\b",
    r"\bdo not (?:follow|obey)\b.{0,24}\b(?:instructions?|guidelines?|system prompt)\b",
    r"\b(?:ignorier\w*|vergiss|vergesse\w*|missachte\w*|überschreibe)\b.{0,24}"
    r"\b(?:vorherige\w*|vorige\w*|bisherige\w*|obige\w*|alle\w*|deine\w*)\b.{0,24}\b(?:anweisung\w*|instruktion\w*|vorgabe\w*|prompts?)\b",
    r"\b(?:ignor(?:e|ez|er)|oubli(?:e|ez|er))\b.{0,24}\b(?:instructions?|consignes?|directives?)\b"
    r".{0,24}\b(?:précédente?s?|antérieure?s?|ci-dessus)",
    r"\b(?:ignora|ignore|olvida|olvide)\b.{0,24}\b(?:instrucciones|indicaciones|órdenes)\b.{0,24}\b(?:anteriores|previas)\b",
    r"\b(?:ignora|dimentica|ignori)\b.{0,24}\b(?:istruzioni|indicazioni)\b.{0,24}\b(?:precedenti|sopra)\b",
    r"\b(?:ignore|esqueça|desconsidere)\b.{0,24}\b(?:instruções|orientações)\b.{0,24}\b(?:anteriores|acima)\b",
    r"\b(?:negeer|vergeet)\b.{0,24}\b(?:vorige|eerdere|voorgaande|bovenstaande|alle)\b.{0,24}\b(?:instructies|aanwijzingen)\b",
    r"\b(?:zignoruj|ignoruj|zapomnij)\b.{0,24}\b(?:poprzednie|wcześniejsze|powyższe|wszystkie)\b.{0,24}\b(?:instrukcje|polecenia)\b",
    r"\b(?:ignorera|glöm|bortse från)\b.{0,24}\b(?:tidigare|föregående|ovanstående|alla)\b.{0,24}\b(?:instruktioner|anvisningar)\w*",
    r"(?:игнорируй\w*|проигнорируй\w*|забудь\w*).{0,24}(?:предыдущ\w*|прежн\w*|все).{0,24}(?:инструкци\w*|указани\w*)",
    r"önceki.{0,16}(?:talimat\w*|yönerge\w*).{0,24}(?:yok say|unut|görmezden gel)",
    r"(?:忽略|无视|忘记|忽視|無視).{0,8}(?:之前|以前|上面|前面|先前|所有|以上).{0,8}(?:指令|指示|提示|说明|命令)",
    r"(?:これまで|以前|前|上記|すべて).{0,6}の?(?:指示|命令|プロンプト).{0,6}(?:無視|忘れ)",
    r"(?:이전|위의|모든).{0,8}(?:지시|명령|프롬프트).{0,8}(?:무시|잊)",
    r"(?:पिछले|सभी|पहले).{0,12}(?:निर्देश|आदेश).{0,16}(?:अनदेखा|भूल|नज़रअंदाज़)",
    r"(?:تجاهل|انس).{0,16}(?:التعليمات|الأوامر|الإرشادات).{0,16}(?:السابقة|أعلاه)",
)
_PERSONA = (
    r"\b(?:you are|you're) (?:now |no longer |henceforth )(?:an? |in |bound |the |acting |called |free|restricted|DAN\b)",
    r"\bfrom now on,? you (?:are|will|must|shall|answer|respond|speak)\b",
    r"\b(?:pretend|act) (?:to be|as if you (?:are|were|have)|as an? (?:AI|assistant|unrestricted|evil|jailbroken|language model))",
    r"\byou are (?:an? )?(?:helpful|AI|large language|uncensored|unrestricted|jailbroken)\b.{0,20}\b(?:assistant|model|AI)\b",
    r"\b(?:enable|enter|activate|switch to) (?:developer|jailbreak|god|DAN|debug|unrestricted) mode\b|\bdo anything now\b",
    r"\bdu bist (?:jetzt|ab jetzt|ab sofort|nun|ein hilfreicher|ein KI)\b|\bab (?:jetzt|sofort) (?:antwortest|bist|sprichst|verhältst) du\b",
    r"\b(?:tu es|vous êtes) (?:maintenant|désormais|un assistant)\b|\bà partir de maintenant,? (?:tu|vous)\b",
    r"\b(?:ahora eres|eres un asistente|a partir de ahora (?:eres|responde\w*|vas))\b",
    r"\b(?:ora sei|d'ora in poi sei|sei un assistente)\b|\b(?:agora você é|você é um assistente|a partir de agora,? você)\b",
    r"\b(?:je bent (?:nu|vanaf nu|een behulpzame)|vanaf nu ben je)\b|\bjesteś (?:teraz|od teraz|pomocnym)\b|\bdu är (?:nu|en hjälpsam)\b",
    r"(?:теперь ты|ты теперь|отныне ты|ты\s?[—-]\s?полезный)",
    r"(?:你现在是|从现在开始你|从现在起[,，]?你|你是一个(?:有用的|有帮助的|人工智能|AI)|あなたは(?:今から|これから|役に立つ)|당신은 (?:이제|지금부터))",
)
_PROMPT_LEAK = (
    r"\b(?:reveal|repeat|print|show|output|display|leak|tell me|give me|write out|what (?:is|are)|expose)\b.{0,24}"
    r"\b(?:your|the|this|hidden|initial) (?:full |entire |initial |hidden |original |secret )?(?:system prompt|system message|instructions above|hidden instructions|initial (?:prompt|instructions)|prompt above)\b",
    r"\b(?:zeige?|verrate?|wiederhole|nenne?|gib)\b.{0,24}\b(?:system-?prompt|systemanweisung\w*)\b",
    r"\b(?:révèle|affiche|répète|montre|révélez|affichez)\b.{0,24}\b(?:prompt système|instructions système|invite système)\b",
    r"\b(?:revela|muestra|repite|imprime|revele|mostre|mostra|rivela)\b.{0,24}\b(?:prompt del sistema|instrucciones del sistema|prompt do sistema|prompt di sistema)\b",
    r"(?:покажи|выведи|раскрой).{0,16}системн\w* (?:промпт|подсказк\w*|инструкци\w*)",
    r"(?:显示|输出|告诉我|重复|透露).{0,8}(?:系统提示|系统指令|系统提示词|系统消息)|システムプロンプトを.{0,6}(?:表示|教え|出力)",
)
_ROLE_MARKER = (
    # At the beginning of a line, as pasted chats have them; with the answering side named, not merely anyone.
    r"(?m:^[ \t>*_#\[(]{0,6}(?:assistant|AI assistant|chatbot|chatgpt|gpt-?4?|claude|gemini|llama|USER|Human)[ \t*_\])]{0,4}:(?=\s|$|\*))",
    r"(?m:^[ \t>*_#]{0,6}(?:system|user|human|benutzer|utilisateur|usuario|utente|пользователь|用户|ユーザー)[ \t*_]{0,4}[:：].*\n(?:.*\n){0,4}[ \t>*_#]{0,6}(?:assistant|assistent|asistente|assistente|ai|bot|ассистент|助手|アシスタント)[ \t*_]{0,4}[:：])",
    r"(?m:^#{2,4} ?(?:Instruction|Instructions|Response|Human|Assistant|System|Input)s?:?[ \t]*$)",
    r"(?m:^[ \t]*(?:system prompt|system message|new instructions?|Systemprompt|Neue Anweisung|nouvelles instructions|nuevas instrucciones|系统提示|新指令)[ \t]*[:：])",
    r'"role"\s*:\s*"(?:system|assistant|user)"',
    r"(?m:^[ \t]*(?:助手|ассистент)[ \t]*[:：])",
)
_CHAT_MARKUP = (
    # ChatML, Llama 3, Phi, Qwen, GLM, DeepSeek, Kimi, gpt-oss: every token in <|...|> or its full-width twin.
    r"<[|｜][\w\u2581 /-]{2,40}[|｜]>",
    # Llama 2 and Mistral.
    r"\[/?INST\]|<</?SYS>>|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT|IMG|IMG_BREAK|IMG_END|THINK)\]",
    # Gemma, GLM, T5, LLaVA, InternVL, Molmo.
    r"</?(?:start_of_turn|end_of_turn|start_of_image|end_of_image|image_soft_token|bos|eos|pad|unused\d{1,2}|IMG_CONTEXT|img|im_patch|im_start|low_res_im_start|im_end|im_col|im_low|frame_start|frame_end|sop|eop|extra_id_\d+)>",
    r"\[(?:gMASK|sMASK|MASK|CLS|SEP)\]",
    r"(?:^|(?<=\s))</?s>(?=\s|$)|(?:^|(?<=\w))</s>$",
    r"</?(?:think|thinking|tool_call|tool_response|tools|arg_key|arg_value|function_calls?|answer_box|scratchpad)>",
    r"(?m:^(?:USER|ASSISTANT): ?<image>)|<(?:image|video)>\s*$|^<(?:image|video)>",
)
# For each kind pieces of which every match holds one, in lower case: a text with none is not searched.
_STEMS: dict[Kind, tuple[str, ...]] = {
    "override": (
        "ignor", "disreg", "forget", "overrid", "overlook", "discard", "bypass", "do not follow", "do not obey",
        "vergiss", "vergess", "vergeet", "missacht", "überschr", "oubli", "olvid", "dimentic", "esque",
        "desconsid", "negeer", "zapomnij", "glöm", "bortse", "забудь", "игнорир", "önceki", "忽", "无视", "忘", "無視",
        "무시", "잊", "निर्देश", "आदेश", "تجاهل", "انس",
    ),
    "persona": (
        "you are", "you're", "from now on", "pretend", "act as", "act to be", " mode", "do anything now",
        "du bist", "ab jetzt", "ab sofort", "tu es", "vous êtes", "à partir", "ahora", "asistente", "ora sei",
        "d'ora", "sei un", "você", "je bent", "vanaf nu", "jesteś", "du är", "ты", "你", "从现在", "あなたは", "당신은",
    ),
    "prompt_leak": (
        "prompt", "system message", "instructions", "anweisung", "système", "instrucciones", "системн", "系统", "システム",
    ),
    "role_marker": (
        "assist", "chatbot", "gpt", "claude", "gemini", "llama", "user", "human", "##", '"role"', "system", "instruc",
        "anweisung", "系统", "新指令", "助手", "ассист", "アシスタント", "asist", "bot", "ai:", "ai ", "ai：",
    ),
    "chat_markup": ("<", "[inst", "[/inst", "[avail", "[tool", "[syst", "[img", "[think", "[gmask", "[smask", "[mask",
                    "[cls", "[sep", "[/tool", "[/syst", "[/avail", "[/img", "[/think"),
}  # fmt: skip
_TEXTS: dict[Kind, tuple[str, ...]] = {
    "override": _OVERRIDE,
    "persona": _PERSONA,
    "prompt_leak": _PROMPT_LEAK,
    "role_marker": _ROLE_MARKER,
    "chat_markup": _CHAT_MARKUP,
}
_PATTERNS: dict[Kind, re.Pattern[str]] = {
    kind: re.compile("|".join(f"(?:{each})" for each in _TEXTS[kind]), re.I) for kind in KINDS
}
_ASCII_STEMS: dict[Kind, tuple[str, ...]] = {
    kind: tuple(stem for stem in stems if stem.isascii()) for kind, stems in _STEMS.items()
}


def find_instructions(text: str) -> list[Instruction]:
    """What in `text` speaks to a model: the first of each kind, in the order of `KINDS`."""
    found: list[Instruction] = []
    lowered = text.lower()
    for kind, stems in (_ASCII_STEMS if text.isascii() else _STEMS).items():
        for stem in stems:
            if stem in lowered:
                match = _PATTERNS[kind].search(text)
                if match:
                    found.append(Instruction(kind, match.start(), match.end()))
                break
    return found
