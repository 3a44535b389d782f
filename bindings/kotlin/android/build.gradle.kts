// The library as an AAR: gradle :android:assembleRelease, after `make android-native` has put the native part into
// src/main/jniLibs.
plugins {
    alias(libs.plugins.android.library)
    `maven-publish`
}

// The version of the whole project.
val caratVersion = file("../../../Cargo.toml").useLines { lines ->
    lines.first { it.startsWith("version = ") }.substringAfter('"').substringBefore('"')
}

android {
    namespace = "ai.carat.android"
    compileSdk = 36

    defaultConfig {
        minSdk = 24
        consumerProguardFiles("consumer-rules.pro")
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
    }

    sourceSets {
        named("main") {
            // The binding itself is the same on every JVM.
            kotlin.directories.add("../carat/src/main/kotlin")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    packaging {
        jniLibs {
            // It is stripped already, and stripping needs the NDK.
            keepDebugSymbols += "**/libcarat_jni.so"
            // Uncompressed, so that it is mapped from the package: its segments are aligned for pages of 16 KB.
            useLegacyPackaging = false
        }
    }

    publishing {
        singleVariant("release") {
            withSourcesJar()
        }
    }
}

kotlin {
    explicitApi()
}

dependencies {
    api(libs.coroutines)
}

val nativeParts = listOf("arm64-v8a", "x86_64").map { file("src/main/jniLibs/$it/libcarat_jni.so") }

val checkNative = tasks.register("checkNative") {
    inputs.files(nativeParts)
    doLast {
        for (part in nativeParts) {
            check(part.exists()) { "$part is missing: run `make android-native` at the top of the repository first" }
        }
    }
}
tasks.named("preBuild") { dependsOn(checkNative) }

publishing {
    publications {
        register<MavenPublication>("release") {
            groupId = "ai.carat"
            artifactId = "carat-android"
            version = caratVersion
            afterEvaluate { from(components["release"]) }
        }
    }
}
